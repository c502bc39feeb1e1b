//! The `provisioner` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    provisioner::main(std::env::args_os()).await
}
