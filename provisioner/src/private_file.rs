//! Files that are readable only by their owner.

use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file in one step: it is complete or as it was before. A link or a pipe of that name is replaced, and
/// neither followed nor written to.
///
/// # Errors
/// The folder does not exist or is not writable.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn link_is_replaced_and_the_file_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "untouched").expect("a file");
        symlink(&target, &link).expect("a link");
        write(&link, b"new").expect("a file");
        assert_eq!(std::fs::read_to_string(&target).expect("the target"), "untouched");
        let written = std::fs::symlink_metadata(&link).expect("a file");
        assert!(written.is_file() && written.permissions().mode() & 0o077 == 0, "{written:?}");
        assert!(write(&folder.path().join("no/such/folder"), b"new").is_err());
    }
}
