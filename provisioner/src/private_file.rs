//! Files that are readable only by their owner.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

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

/// Reads a text file that only its owner may read.
///
/// # Errors
/// The file cannot be read, or others have permissions on it.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(io::Error::other(format!("others than its owner have permissions on it ({mode:03o})")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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
        assert!(written.is_file() && written.permissions().mode() & OTHERS == 0, "{written:?}");
        assert!(write(&folder.path().join("no/such/folder"), b"new").is_err());
    }

    #[test]
    fn file_is_read_only_if_it_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        write(&file, b"open sesame\n").expect("a file");
        assert_eq!(read(&file).expect("the text"), "open sesame\n");
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("permissions");
            assert!(read(&file).expect_err("a refusal").to_string().contains(&format!("({mode:o})")));
        }
        assert_eq!(read(&folder.path().join("missing")).expect_err("an error").kind(), io::ErrorKind::NotFound);
    }
}
