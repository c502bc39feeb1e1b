//! The function's own code, run on local files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use handler::rollup::{Broken, Rollup, Seen, Totals};

use crate::config;
use crate::error::Error;
use crate::report::printable;

/// Bytes read at a time.
const BLOCK: usize = 256 * 1024;

/// The types that are counted: as named, or else as declared, or else track alone.
///
/// # Errors
/// A type that Segment has not, or a declaration with mistakes.
pub fn types(named: &[String], config: &Path, environment: Option<&str>) -> Result<BTreeSet<String>, Error> {
    if let Some(unknown) = named.iter().find(|name| !contract::MESSAGE_TYPES.contains(&name.as_str())) {
        return Err(Error::Refused {
            what: format!("`{}` is not a Segment message type", unknown.escape_debug()),
            help: format!("the types are {}", contract::MESSAGE_TYPES.join(", ")),
        });
    }
    let declared = match named {
        [] if config.exists() => config::load(config, environment)?.count,
        [] => vec!["track".to_owned()],
        named => named.to_vec(),
    };
    Ok(declared.into_iter().collect())
}

/// The totals of all files that could be read, and what was wrong with the others. What was skipped is said on stderr.
pub fn files(files: &[PathBuf], types: &BTreeSet<String>) -> (Totals, Result<(), Error>) {
    let (mut totals, mut failed) = (Totals::new(), Vec::new());
    for path in files {
        match file(path, types) {
            Ok((added, seen)) => {
                for (pair, count) in added {
                    *totals.entry(pair).or_default() += count;
                }
                if seen.skipped() > 0 {
                    let name = printable(&path.display().to_string());
                    let (skipped, reasons, first) = (seen.skipped(), seen.reasons(), seen.examples());
                    let _ = writeln!(
                        anstream::stderr(),
                        "{name}: {skipped} of {} lines skipped ({reasons}); the first: {first}",
                        seen.lines
                    );
                }
            }
            Err(error) => failed.push(error),
        }
    }
    let result = match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => Err(Error::Several(failed)),
    };
    (totals, result)
}

fn file(path: &Path, types: &BTreeSet<String>) -> Result<(Totals, Seen), Error> {
    let name = printable(&path.display().to_string());
    let unreadable = |source| Error::Io {
        doing: format!("read {name}"),
        help: "check the file's name and rights".to_owned(),
        source,
    };
    let broken = |broken| match broken {
        Broken::Gzip(source) => Error::Io {
            doing: format!("inflate {name}"),
            help: "the file is damaged or cut short: the function would not count it either".to_owned(),
            source,
        },
        Broken::TooManyPairs => Error::Refused {
            what: format!("failed to count {name}: {broken}"),
            help: "names should be of events, not of single things: the function would not count it either".to_owned(),
        },
    };
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let (mut rollup, mut block) = (Rollup::new(types), vec![0; BLOCK]);
    loop {
        match input.read(&mut block) {
            Ok(0) => break,
            Ok(read) => rollup.push(block.get(..read).unwrap_or_default()).map_err(broken)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    rollup.finish().map_err(broken)
}
