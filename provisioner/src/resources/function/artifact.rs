//! The handler's binary: locates it, checks it against the Lambda runtime, and zips it reproducibly.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::config::{Function, LOCAL, Pipeline};
use crate::error::Error;
use crate::reconcile::diff::Code;

/// The path to which `make handler` writes the binary.
pub(crate) const BUILT: &str = "target/lambda/bootstrap";
/// The name of the file that the runtime starts (Lambda developer guide, OS-only runtimes).
pub(crate) const ENTRY: &str = "bootstrap";
/// The glibc version of Amazon Linux 2023, and thus of `provided.al2023`.
const GLIBC: (u32, u32) = (2, 34);
/// The largest zip that Lambda accepts in a request, 50 MB (Lambda quotas).
const LARGEST_ZIP: usize = 50 * 1024 * 1024;

/// The function's code, ready to upload.
#[derive(Debug)]
pub(crate) struct Artifact {
    /// The zip file.
    pub(crate) zip: Vec<u8>,
    /// Its identity, for the comparison with the live code.
    pub(crate) code: Code,
}

impl Artifact {
    /// Finds, checks and zips the binary of a function.
    ///
    /// # Errors
    /// The binary is missing, would not start on Lambda, or is too large.
    fn load(pipeline: &Pipeline, function: &Function) -> Result<Self, Error> {
        let path = find(pipeline, function)?;
        let bytes = std::fs::read(&path).map_err(|source| {
            Error::io(format!("read the handler's binary {}", path.display()), "build it with `make handler`", &source)
        })?;
        let is_local = pipeline.environment.as_deref() == Some(LOCAL);
        check(&bytes, &function.architecture, is_local).map_err(|ArtifactError { why, help }| {
            Error::usage(format!("{} would not run on Lambda: {why}", path.display()), help)
        })?;
        let zip =
            zip(&bytes).map_err(|source| Error::io(format!("zip {}", path.display()), "free some memory", &source))?;
        if zip.len() > LARGEST_ZIP {
            return Err(Error::usage(
                format!("{} is {} bytes when zipped; Lambda accepts at most {LARGEST_ZIP}", path.display(), zip.len()),
                "build it in release mode, stripped: `make handler`",
            ));
        }
        let code = Code {
            sha256: STANDARD.encode(Sha256::digest(&zip)),
            bytes: u64::try_from(zip.len()).unwrap_or(u64::MAX),
            revision: revision(&pipeline.directory),
        };
        Ok(Self { zip, code })
    }
}

/// The code of each function, by the function's name. It is empty until it is loaded: the live state is read meanwhile,
/// and compared afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Artifacts(Arc<OnceLock<BTreeMap<String, Artifact>>>);

impl Artifacts {
    /// Loads the code of every function of the pipeline.
    ///
    /// # Errors
    /// The first binary that is missing or would not start on Lambda.
    pub(crate) fn load(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let load = |function: &Function| Ok((function.name.clone(), Artifact::load(pipeline, function)?));
        let loaded: Result<BTreeMap<String, Artifact>, Error> = pipeline.functions().into_iter().map(load).collect();
        let loaded = loaded?;
        self.0.get_or_init(|| loaded);
        Ok(())
    }

    /// Returns the code of a function, if it is loaded.
    pub(super) fn of(&self, function: &str) -> Option<&Artifact> {
        self.0.get()?.get(function)
    }
}

#[cfg(test)]
impl FromIterator<(String, Artifact)> for Artifacts {
    fn from_iter<I: IntoIterator<Item = (String, Artifact)>>(artifacts: I) -> Self {
        Self(Arc::new(OnceLock::from(artifacts.into_iter().collect::<BTreeMap<_, _>>())))
    }
}

/// Runs git in a folder and returns its output, or `None` if it fails. It sees no credentials of AWS, and asks nothing.
fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]).args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        git.env_remove(name);
    }
    // A clone without some objects must not fetch them, which may run a program that its configuration names.
    git.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_ALLOW_PROTOCOL", "none");
    let output = git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok().filter(|_| output.status.success())
}

/// Returns whether the configuration of a repository could make git run a program or read another file.
/// Each line has the scope and the name of a setting.
fn may_run_programs(settings: &str) -> bool {
    let is_of_repository = |scope: &str| matches!(scope, "local" | "worktree");
    settings.lines().filter_map(|line| line.split_once('\t')).filter(|(scope, _)| is_of_repository(scope)).any(
        |(_, name)| {
            let name = name.to_ascii_lowercase();
            ["filter.", "diff.", "include.", "includeif."].iter().any(|section| name.starts_with(section))
        },
    )
}

/// Returns the git revision of the folder of pipeline.toml, or `None` outside of a repository, without git, or if the
/// repository's own configuration names programs: a folder from elsewhere must not run any.
fn revision(folder: &Path) -> Option<String> {
    let settings = git(folder, &["config", "--list", "--show-scope", "--name-only"])?;
    if may_run_programs(&settings) {
        return None;
    }
    let revision = git(folder, &["rev-parse", "--short=12", "HEAD"])?;
    // A submodule has a configuration of its own, and is not looked at.
    let changes = ["status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"];
    let dirty = if git(folder, &changes)?.is_empty() { "" } else { "-dirty" };
    Some(format!("{}{dirty}", revision.trim()))
}

/// Returns the path of the binary: the first of the [`candidates`] that is a file.
fn find(pipeline: &Pipeline, function: &Function) -> Result<PathBuf, Error> {
    let program = std::env::current_exe().ok();
    let artifact = function.artifact.as_deref();
    let candidates = candidates(&pipeline.directory, artifact, &function.architecture, program.as_deref());
    if let Some(path) = candidates.iter().find(|path| path.is_file()) {
        return Ok(path.clone());
    }
    let mut searched: Vec<String> = candidates.iter().map(|path| display_path(path)).collect();
    searched.dedup();
    let help = match artifact {
        Some(_) => "build it with `make handler`, or set its path with the key `artifact` of its section".to_owned(),
        None => format!(
            "build it with `make handler`, install it with `make install ARCH={}`, or keep the archive's {} beside \
             provisioner",
            function.architecture,
            released(&function.architecture)
        ),
    };
    Err(Error::usage(format!("the handler's binary does not exist at {}", searched.join(" or ")), help))
}

/// Returns the name of the handler's binary in the archives of a release.
fn released(architecture: &str) -> String {
    format!("{ENTRY}-{architecture}")
}

/// Returns the paths at which a function's binary may be, best first. An `artifact` of the file is relative to its folder.
/// Without one, it is the output of `make handler`, relative to that folder or to the working directory, or the handler
/// that was released with the running program: beside it, or in the folder `lib` next to its folder.
fn candidates(folder: &Path, artifact: Option<&str>, architecture: &str, program: Option<&Path>) -> Vec<PathBuf> {
    if let Some(artifact) = artifact {
        return vec![folder.join(artifact)];
    }
    let beside = program.and_then(Path::parent);
    let library = beside.and_then(Path::parent).map(|root| root.join("lib/provisioner"));
    let installed = beside.map(Path::to_path_buf).into_iter().chain(library);
    let built = [folder.join(BUILT), PathBuf::from(BUILT)];
    built.into_iter().chain(installed.map(|folder| folder.join(released(architecture)))).collect()
}

fn display_path(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

struct ArtifactError {
    why: String,
    help: String,
}

fn unusable(why: impl Into<String>, help: impl Into<String>) -> ArtifactError {
    ArtifactError { why: why.into(), help: help.into() }
}

/// Checks the binary before the upload: Lambda itself reports these defects only at the first invocation. A local AWS runs
/// it with this machine's own glibc.
fn check(bytes: &[u8], architecture: &str, is_local: bool) -> Result<(), ArtifactError> {
    let rebuild = "build it with `make handler`";
    let not_elf = |_| unusable("it is not a 64-bit Linux (ELF) program", rebuild);
    let file: ElfFile64<'_> = ElfFile64::parse(bytes).map_err(not_elf)?;
    let (header, endian) = (file.elf_header(), file.endian());
    let (machine, wanted) = match architecture {
        "arm64" => (elf::EM_AARCH64, "ARCH=arm64"),
        _ => (elf::EM_X86_64, "ARCH=x86_64"),
    };
    if header.e_machine(endian) != machine {
        let found = match header.e_machine(endian) {
            elf::EM_X86_64 => "x86_64".to_owned(),
            elf::EM_AARCH64 => "arm64".to_owned(),
            other => format!("machine number {other:?}"),
        };
        return Err(unusable(
            format!("it is built for {found}, but function.architecture is {architecture}"),
            format!("build it with `make handler {wanted}`, or change function.architecture"),
        ));
    }
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) || header.e_entry(endian) == 0 {
        return Err(unusable("it is an ELF file, but not a program", rebuild));
    }
    match newest_glibc(&file).map_err(|_| unusable("its list of needed versions is damaged", rebuild))? {
        Some(needed) if needed > GLIBC && !is_local => Err(unusable(
            format!("it needs GLIBC_{}.{}, but provided.al2023 has {}.{}", needed.0, needed.1, GLIBC.0, GLIBC.1),
            format!("{rebuild}, which links against glibc {}.{}", GLIBC.0, GLIBC.1),
        )),
        _ => Ok(()),
    }
}

/// Returns the highest `GLIBC_x.y` among the symbol versions that the program needs, or `None` if it is statically
/// linked.
fn newest_glibc(file: &ElfFile64<'_>) -> Result<Option<(u32, u32)>, object::read::Error> {
    let (endian, data) = (file.endian(), file.data());
    let sections = file.elf_section_table();
    let mut newest = None;
    for section in sections.iter() {
        let Some((mut needs, strings)) = section.gnu_verneed(endian, data)? else {
            continue;
        };
        let strings = sections.strings(endian, data, strings)?;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                newest = newest.max(glibc_version(version.name(endian, strings)?));
            }
        }
    }
    Ok(newest)
}

fn glibc_version(name: &[u8]) -> Option<(u32, u32)> {
    let version = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
    let mut numbers = version.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The level of compression. Every plan waits for it: level 3 takes two thirds of the time of the usual 6, for 3 % more bytes.
const LEVEL: i64 = 3;

/// Returns a zip of one entry. Its time and mode are fixed, so that the same binary produces the same zip, and thus the
/// same `CodeSha256`.
fn zip(binary: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::with_capacity(binary.len() / 2)));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(LEVEL))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    writer.start_file(ENTRY, options)?;
    writer.write_all(binary)?;
    Ok(writer.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn revision_of_a_folder_runs_no_program_of_its_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |args: &[&str]| {
            let identity = ["-c", "user.name=Tests", "-c", "user.email=tests@example.com"];
            let status = Command::new("git").arg("-C").arg(folder.path()).args(identity).args(args).status();
            assert!(status.is_ok_and(|status| status.success()), "git {args:?}");
        };
        let (marker, script) = (folder.path().join("marker"), folder.path().join("script"));
        std::fs::write(&script, format!("#!/bin/sh\ntouch '{}'\ncat\n", marker.display())).expect("a script");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("an executable");
        run(&["init", "--quiet"]);
        std::fs::write(folder.path().join("file"), "text").expect("a file");
        run(&["add", "file"]);
        run(&["commit", "--quiet", "--message", "first"]);
        let first = revision(folder.path()).expect("a revision");
        assert!(first.len() == 12, "{first}");
        std::fs::write(folder.path().join("file"), "changed").expect("a file");
        assert_eq!(revision(folder.path()), Some(format!("{first}-dirty")));
        assert!(!marker.exists());

        run(&["config", "core.fsmonitor", &script.display().to_string()]);
        assert_eq!(revision(folder.path()), Some(format!("{first}-dirty")));
        // A repository within it, which is a submodule, has a configuration of its own.
        let inner = folder.path().join("inner");
        let inner = inner.to_str().expect("a path");
        let script = script.display().to_string();
        run(&["init", "--quiet", inner]);
        run(&["-C", inner, "commit", "--quiet", "--allow-empty", "--message", "inner"]);
        run(&["-C", inner, "config", "core.fsmonitor", &script]);
        run(&["add", "inner"]);
        let _ = std::fs::remove_file(&marker);
        assert_eq!(revision(folder.path()), Some(format!("{first}-dirty")));
        assert!(!marker.exists(), "a program of the submodule ran");

        run(&["config", "filter.x.clean", &script]);
        std::fs::write(folder.path().join(".git/info/attributes"), "* filter=x\n").expect("attributes");
        assert_eq!(revision(folder.path()), None);
        assert!(!marker.exists(), "a program of the repository ran");
        assert_eq!(revision(Path::new("/")), None);
    }

    #[test]
    fn binary_without_a_path_is_sought_where_it_is_built_and_then_with_the_program() {
        let program = Path::new("/usr/local/bin/provisioner");
        let expected = [
            "pipelines/target/lambda/bootstrap",
            "target/lambda/bootstrap",
            "/usr/local/bin/bootstrap-arm64",
            "/usr/local/lib/provisioner/bootstrap-arm64",
        ];
        assert_eq!(candidates(Path::new("pipelines"), None, "arm64", Some(program)), expected.map(PathBuf::from));
    }

    #[test]
    fn binary_with_a_path_is_sought_there_alone() {
        let program = Path::new("/usr/local/bin/provisioner");
        let sought = candidates(Path::new("pipelines"), Some("own/bootstrap"), "x86_64", Some(program));
        assert_eq!(sought, [PathBuf::from("pipelines/own/bootstrap")]);
    }

    #[test]
    fn script_is_refused() {
        let error = check(b"#!/bin/sh\n", "x86_64", false).expect_err("a script is not an ELF file");
        assert!(error.why.contains("not a 64-bit Linux"), "{}", error.why);
    }

    #[test]
    fn truncated_program_does_not_panic() {
        let whole = std::fs::read("/proc/self/exe").expect("this test's own binary");
        for cut in (0..4096).chain((4096..whole.len()).step_by(whole.len() / 50)) {
            let _ = check(&whole[..cut], "x86_64", false);
        }
    }

    #[test]
    fn program_for_another_architecture_is_refused_with_its_name() {
        let whole = std::fs::read("/proc/self/exe").expect("this test's own binary");
        let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "x86_64" };
        let error = check(&whole, other, false).expect_err("built for this machine");
        assert!(error.why.contains(std::env::consts::ARCH) || error.why.contains("arm64"), "{}", error.why);
    }

    #[test]
    fn glibc_versions_compare_numerically() {
        assert!(glibc_version(b"GLIBC_2.4") < glibc_version(b"GLIBC_2.34"));
        assert_eq!(glibc_version(b"GLIBC_2.3.4"), Some((2, 3)));
        assert_eq!(glibc_version(b"GLIBC_PRIVATE"), None);
        assert_eq!(glibc_version(b"GCC_3.0"), None);
    }

    #[test]
    fn zip_is_reproducible_and_executable() {
        let first = zip(b"binary").expect("a zip");
        assert_eq!(first, zip(b"binary").expect("a zip"));
        let mut archive = zip::ZipArchive::new(Cursor::new(first)).expect("a readable zip");
        let entry = archive.by_index(0).expect("one entry");
        assert_eq!(entry.name().expect("a name"), "bootstrap");
        assert_eq!(entry.unix_mode(), Some(0o100_755));
    }
}
