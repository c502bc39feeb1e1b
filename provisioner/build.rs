//! Adds the git revision to `--version` if the sources are in a git repository.

use std::process::Command;

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    let git = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let version = match git {
        Some(revision) => format!("{version} ({})", revision.trim()),
        None => version.to_owned(),
    };
    println!("cargo:rustc-env=PROVISIONER_VERSION={version}");
    println!("cargo:rerun-if-changed=build.rs");
    // The log of HEAD changes with every commit and checkout.
    println!("cargo:rerun-if-changed=../.git/logs/HEAD");
}
