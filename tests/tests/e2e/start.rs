//! What the function costs before it does anything. How long it takes is measured by `make bench-rollup`, not tested.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::local_aws::root;

use crate::pipeline;

#[test]
fn it_starts_in_little_memory_and_asks_for_work_first() -> Result<()> {
    let runtime = TcpListener::bind("127.0.0.1:0")?;
    let variables = [
        ("AWS_LAMBDA_RUNTIME_API", runtime.local_addr()?.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", "handler".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("COUNTS_TABLE", "counts".to_owned()),
        ("LEDGER_TABLE", "ledger".to_owned()),
        ("COUNT_TYPES", "track".to_owned()),
    ];
    let mut command = Command::new(root().join("target/lambda/bootstrap"));
    let mut child = command.env_clear().envs(variables).stdout(Stdio::null()).spawn()?;
    let asked = (|| {
        let (mut connection, _) = runtime.accept()?;
        let mut request = [0; 64];
        let read = connection.read(&mut request)?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        Ok::<_, anyhow::Error>((String::from_utf8_lossy(&request[..read]).into_owned(), status))
    })();
    child.kill()?;
    child.wait()?;
    let (request, status) = asked?;
    ensure!(request.contains("/runtime/invocation/next"), "{request}");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let peak: u64 = peak.context("a peak")?;
    ensure!(peak < 30 * 1024, "{peak} KiB");
    Ok(())
}

#[test]
fn without_its_variables_it_says_which_one() -> Result<()> {
    let mut command = Command::new(root().join("target/lambda/bootstrap"));
    let output = command.env_clear().env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("COUNTS_TABLE") && !said.contains("panicked"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn its_zip_is_small() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function =
        lambda.get_function_configuration().function_name(format!("{}-handler", pipeline.name)).send().await?;
    ensure!(function.code_size < 5_000_000, "{} bytes", function.code_size);
    Ok(())
}
