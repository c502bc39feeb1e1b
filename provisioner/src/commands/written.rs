//! The files that `init` and `adopt` write: a `pipeline.toml`, and the schema beside it, which its first line names.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::config;

/// The schema, beside the file.
const SCHEMA: &str = "pipeline.schema.json";

/// Writes a `pipeline.toml`, and the schema for editors beside it. With `replaces`, files that exist are replaced. Without
/// it, none is, not even one that appears meanwhile; a schema that is there stays.
///
/// # Errors
/// The path that cannot be written, with the reason.
pub(super) fn write(path: &Path, text: &str, replaces: bool) -> Result<(), (PathBuf, io::Error)> {
    let create = |path: &Path, text: &str| {
        let mut options = OpenOptions::new();
        options.write(true).create(replaces).truncate(replaces).create_new(!replaces);
        let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| (path.to_owned(), error))
    };
    let beside = path.with_file_name(SCHEMA);
    if path == beside {
        return Err((beside, io::Error::new(io::ErrorKind::InvalidInput, "this is the name of the schema's file")));
    }
    // An editor looks for the schema in the first lines.
    create(path, &format!("#:schema ./{SCHEMA}\n{text}"))?;
    match create(&beside, &format!("{:#}\n", config::schema().as_value())) {
        Err((_, error)) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_schema_are_replaced_by_force_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipeline.toml");
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        let schema = path.with_file_name(SCHEMA);
        write(&path, "first, and longer", false).expect("new files");
        assert_eq!(read(&path), "#:schema ./pipeline.schema.json\nfirst, and longer");
        assert!(read(&schema).contains("\"title\": \"pipeline.toml\""));
        let (refused, error) = write(&path, "second", false).expect_err("a refusal");
        assert_eq!((refused.as_path(), error.kind()), (path.as_path(), io::ErrorKind::AlreadyExists));
        std::fs::write(&schema, "mine").expect("a file");
        write(&path.with_file_name("other.toml"), "other", false).expect("a new file");
        assert_eq!((read(&path).ends_with("longer"), read(&schema).as_str()), (true, "mine"));
        write(&path, "second", true).expect("replaced files");
        assert_eq!(read(&path), "#:schema ./pipeline.schema.json\nsecond");
        assert!(read(&schema).len() > "mine".len());
        assert!(write(&folder.path().join("no/such/file"), "", false).is_err());
        assert!(write(&schema, "", true).is_err());
        assert!(read(&schema).contains("\"title\""), "the schema was replaced by the file");
    }
}
