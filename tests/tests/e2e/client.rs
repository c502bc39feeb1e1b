//! Proxies and certificate authorities from the environment.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::local_aws::{LocalAws, Scheme};
use tests::pipeline::{CommandOutput, Pipeline};

use crate::pipeline;

/// Starts a proxy that records the first line of each connection and refuses to connect. It ends with the process.
fn refusing_proxy() -> Result<(u16, mpsc::Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
    let port = listener.local_addr()?.port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).unwrap_or(0);
            let line = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
            let _ = sender.send(line.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
    });
    Ok((port, receiver))
}

#[test]
fn proxy_from_the_environment_is_used() -> Result<()> {
    let pipeline = pipeline()?;
    let (port, lines) = refusing_proxy()?;
    let mut command = pipeline.command(&["events"])?;
    command.env_remove("AWS_ENDPOINT_URL").env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
    let run = CommandOutput::of(&command.output()?);
    ensure!(run.code == Some(1) && run.err.contains("could not be sent"), "{run:?}");
    let line = lines.recv_timeout(Duration::from_secs(10)).context("no connection")?;
    ensure!(line == "CONNECT dynamodb.us-east-1.amazonaws.com:443 HTTP/1.1", "{line}");
    Ok(())
}

#[test]
fn proxy_is_not_used_for_an_endpoint_on_this_machine() -> Result<()> {
    let pipeline = pipeline()?;
    let (port, lines) = refusing_proxy()?;
    for variable in ["HTTP_PROXY", "HTTPS_PROXY"] {
        let mut command = pipeline.command(&["plan"])?;
        let run = CommandOutput::of(&command.env(variable, format!("http://127.0.0.1:{port}")).output()?);
        ensure!(run.code == Some(0), "{run:?}");
    }
    ensure!(lines.try_recv().is_err(), "the proxy was used");
    Ok(())
}

#[test]
fn certificate_bundle_from_the_environment_is_trusted() -> Result<()> {
    let aws = LocalAws::start(Scheme::Https)?;
    let pipeline = Pipeline::new(&aws, 0)?;
    let mut command = pipeline.command(&["plan"])?;
    let unknown = CommandOutput::of(&command.env_remove("SSL_CERT_FILE").output()?);
    ensure!(unknown.code == Some(1), "a plan trusts an unknown certificate: {unknown:?}");
    let mut command = pipeline.command(&["plan"])?;
    let bundle = aws.certificate().context("no certificate")?;
    let trusted = CommandOutput::of(&command.env_remove("SSL_CERT_FILE").env("AWS_CA_BUNDLE", bundle).output()?);
    ensure!(trusted.code == Some(0), "{trusted:?}");
    let mut command = pipeline.command(&["plan"])?;
    let wrong = CommandOutput::of(&command.env("AWS_CA_BUNDLE", "pipeline.toml").output()?);
    ensure!(wrong.code == Some(1) && wrong.err.contains("certificate bundle pipeline.toml"), "{wrong:?}");
    Ok(())
}
