//! A local AWS on a free port. It stops when the process that started it ends, for whatever reason.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::strict::Strict;

/// The timeout for the server's start, which takes three seconds, and longer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two health checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The region of every test, and of the demo.
pub const REGION: &str = "us-east-1";

/// A running local AWS. Dropping it stops it and deletes its files.
pub struct LocalAws {
    child: Child,
    port: u16,
    folder: Option<TempDir>,
    /// The path of its certificate, if it speaks TLS.
    certificate: Option<PathBuf>,
    /// The layer in front of it that is as strict as AWS, if there is one.
    strict: Option<Strict>,
}

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// The service and the action, or the HTTP method if the record has no action.
    pub name: String,
    /// True if the call changes something.
    pub writes: bool,
}

/// The most events that one LookupEvents call returns.
const MAX_EVENTS: usize = 50;

/// The protocol of the local AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// TLS with a self-signed certificate.
    Https,
}

/// The endpoint at which the functions call AWS.
enum Functions {
    /// The server itself.
    AtServer,
    /// A proxy that passes requests on unchanged.
    Through(String),
    /// A proxy that may change requests, so that signatures cannot be checked.
    Unauthenticated(String),
}

/// Returns a port that is currently free.
///
/// # Errors
/// No port is free.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

/// Returns the project's root folder.
#[must_use]
pub fn root() -> &'static Path {
    // The parent of `tests`.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Returns the path of a program of this workspace, next to the running one.
///
/// # Errors
/// The program is not built.
pub fn built_program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("failed to locate the running program")?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `make build`"))
}

impl LocalAws {
    /// Starts a local AWS on a free port, with its own files.
    ///
    /// # Errors
    /// The virtual environment is not installed, or the server does not start.
    pub fn start(scheme: Scheme) -> Result<Self> {
        Self::start_with(scheme, &Functions::AtServer)
    }

    /// Starts a local AWS behind the layer that is as strict as AWS; the functions call AWS through it too.
    ///
    /// # Errors
    /// As [`LocalAws::start`], or the layer does not start.
    pub fn start_strict() -> Result<Self> {
        // The functions' endpoint is the layer's, which forwards to a port that is chosen before the server starts.
        let upstream = free_port()?;
        let strict = Strict::start(free_port()?, upstream)?;
        let folder = TempDir::with_prefix("local-aws-").context("failed to create a temporary folder")?;
        let functions = Functions::Through(strict.endpoint());
        let mut aws = Self::spawn(upstream, folder.path(), true, Scheme::Http, &functions)?;
        ensure!(aws.wait()?, "the local AWS did not start behind the strict layer");
        aws.folder = Some(folder);
        aws.strict = Some(strict);
        Ok(aws)
    }

    /// Starts a local AWS whose functions call AWS at `endpoint`. Authentication is off, because a proxy at that
    /// endpoint may change requests.
    ///
    /// # Errors
    /// As [`LocalAws::start`].
    pub fn start_behind(endpoint: &str) -> Result<Self> {
        Self::start_with(Scheme::Http, &Functions::Unauthenticated(endpoint.to_owned()))
    }

    fn start_with(scheme: Scheme, functions: &Functions) -> Result<Self> {
        let mut log = String::new();
        // Another process can take the free port before the server does; each attempt chooses another port.
        for _ in 0..3 {
            let folder = TempDir::with_prefix("local-aws-").context("failed to create a temporary folder")?;
            let mut aws = Self::spawn(free_port()?, folder.path(), true, scheme, functions)?;
            if aws.wait()? {
                aws.folder = Some(folder);
                return Ok(aws);
            }
            // Read before the folder is dropped with the failed server.
            log = std::fs::read_to_string(folder.path().join("log")).unwrap_or(log);
        }
        bail!("the local AWS did not start:\n{log}")
    }

    /// Runs a local AWS on this port, in the foreground, until it ends.
    ///
    /// # Errors
    /// As [`LocalAws::start`], or the port is in use.
    pub fn run(port: u16, is_strict: bool, announce: impl FnOnce(&Self)) -> Result<()> {
        ensure!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "port {port} is in use: stop the process that listens there, or choose another port with PORT="
        );
        let folder = TempDir::with_prefix("local-aws-").context("failed to create a temporary folder")?;
        let (strict, server, functions) = if is_strict {
            let server = free_port()?;
            let strict = Strict::start(port, server)?;
            let functions = Functions::Through(strict.endpoint());
            (Some(strict), server, functions)
        } else {
            (None, port, Functions::AtServer)
        };
        let mut aws = Self::spawn(server, folder.path(), false, Scheme::Http, &functions)?;
        aws.strict = strict;
        ensure!(aws.wait()?, "the local AWS did not start");
        announce(&aws);
        // `Child::wait` would close standard input, which stops the server.
        let open = aws.child.stdin.take();
        let status = aws.child.wait().context("failed to wait for the local AWS")?;
        drop(open);
        ensure!(status.success(), "the local AWS ended with {status}");
        Ok(())
    }

    fn spawn(port: u16, folder: &Path, quiet: bool, scheme: Scheme, functions: &Functions) -> Result<Self> {
        let python = root().join(".venv/bin/python");
        ensure!(python.is_file(), "the local AWS is not installed: run `make venv`");
        let mut command = Command::new(python);
        command.arg(root().join("tests/local_aws.py")).arg(port.to_string()).arg(folder).stdin(Stdio::piped());
        let mut certificate = None;
        if scheme == Scheme::Https {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).context("failed to certify")?;
            let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
            std::fs::write(&cert, made.cert.pem()).context("failed to write the certificate")?;
            std::fs::write(&key, made.signing_key.serialize_pem()).context("failed to write the key")?;
            command.arg("--tls").arg(&cert).arg(&key);
            certificate = Some(cert);
        }
        match functions {
            Functions::AtServer => {}
            Functions::Through(endpoint) => drop(command.args(["--functions-endpoint", endpoint])),
            Functions::Unauthenticated(endpoint) => {
                command.args(["--functions-endpoint", endpoint, "--no-auth"]);
            }
        }
        if quiet {
            let log = std::fs::File::create(folder.join("log")).context("failed to create a log file")?;
            let again = log.try_clone().context("failed to create a log file")?;
            command.stdout(log).stderr(again);
        }
        let child = command.spawn().context("failed to start the local AWS")?;
        Ok(Self { child, port, folder: None, certificate, strict: None })
    }

    /// Waits until the server answers. Returns false if it ended or does not answer in time.
    fn wait(&mut self) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if self.child.try_wait().context("failed to check the local AWS")?.is_some() {
                return Ok(false);
            }
            if is_healthy(self.port, self.certificate.is_some()) {
                return Ok(true);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(false)
    }

    /// Returns the layer that is as strict as AWS, if there is one.
    #[must_use]
    pub fn strict(&self) -> Option<&Strict> {
        self.strict.as_ref()
    }

    /// Returns the URL at which programs call this AWS: the strict layer's, if there is one.
    #[must_use]
    pub fn endpoint(&self) -> String {
        if let Some(strict) = &self.strict {
            return strict.endpoint();
        }
        self.server_endpoint()
    }

    /// Returns the server's own URL.
    fn server_endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Returns an HTTP client that trusts the server's certificate.
    fn http_client(&self) -> Result<SharedHttpClient> {
        let Some(path) = &self.certificate else { return Ok(Builder::new().build_http()) };
        let pem = std::fs::read(path).context("failed to read the certificate")?;
        let trust = tls::TrustStore::empty().with_pem_certificate(pem);
        let context = tls::TlsContext::builder().with_trust_store(trust).build().context("failed to set up TLS")?;
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        Ok(Builder::new().tls_provider(ring).tls_context(context).build_https())
    }

    /// Returns a configuration for the SDK's clients, as the root of `account`.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub async fn sdk(&self, account: &str) -> Result<SdkConfig> {
        Ok(aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(self.endpoint())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(account, "test", None, None, "test"))
            .http_client(self.http_client()?)
            .load()
            .await)
    }

    /// Returns the calls that an account's root has made since `since`, from CloudTrail's LookupEvents.
    ///
    /// # Errors
    /// The answer is not CloudTrail's, or there were more calls than one answer holds.
    pub fn calls(&self, account: &str, since: SystemTime) -> Result<Vec<RecordedCall>> {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).context("before 1970")?.as_secs_f64();
        let mut calls = Vec::new();
        for service in ["s3", "dynamodb", "iam", "lambda", "logs", "sqs", "sts", "tagging"] {
            let attribute = |key: &str, value: &str| json!({ "AttributeKey": key, "AttributeValue": value });
            let source = format!("{service}.amazonaws.com");
            let attributes = [attribute("AccessKeyId", account), attribute("EventSource", &source)];
            let key = format!("AWS4-HMAC-SHA256 Credential={account}/20150804/{REGION}/cloudtrail/aws4_request");
            let mut answer = ureq::post(self.server_endpoint())
                .header("x-amz-target", "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents")
                .header("content-type", "application/x-amz-json-1.1")
                .header("authorization", format!("{key}, SignedHeaders=host, Signature=none"))
                .send_json(json!({ "LookupAttributes": attributes, "StartTime": since, "MaxResults": MAX_EVENTS }))
                .context("failed to ask for the calls")?;
            let answer: Json = answer.body_mut().read_json().context("failed to read the calls")?;
            let events = answer["Events"].as_array().context("no list of calls")?;
            ensure!(events.len() < MAX_EVENTS, "{service}: more calls than one answer holds");
            for event in events {
                let details: Json = serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap_or_default())?;
                // In the query protocol the action is a parameter, and the server records it as one.
                let action = details["requestParameters"]["Action"].as_str();
                let name = action.or_else(|| event["EventName"].as_str()).context("a call without a name")?;
                let reads = ["Get", "List", "Describe", "Head", "Simulate"].iter().any(|verb| name.starts_with(verb));
                let writes = !reads && event["ReadOnly"] != "true";
                calls.push(RecordedCall { name: format!("{service}:{name}"), writes });
            }
        }
        Ok(calls)
    }

    /// Returns the output of the server and its functions, or an empty string if it is not kept.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.folder.as_ref().map(|folder| folder.path().join("log"));
        path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }

    /// Returns the highest memory peak of all running function processes, in KiB.
    ///
    /// # Errors
    /// No function is running.
    pub fn function_peak_memory(&self) -> Result<u64> {
        let folder = self.folder.as_ref().context("the folder of the local AWS")?.path();
        let peaks = std::fs::read_dir("/proc").context("failed to list processes")?.filter_map(|entry| {
            let process = entry.ok()?.path();
            // The server unpacks a function's code below its temporary folder.
            let program = std::fs::read_link(process.join("exe")).ok()?;
            if !program.starts_with(folder) {
                return None;
            }
            let status = std::fs::read_to_string(process.join("status")).ok()?;
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        peaks.max().context("no function is running")
    }

    /// Returns the path of the server's certificate, if it speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// Returns the environment variables that direct a program to `account` on this server.
    #[must_use]
    pub fn variables(&self, account: &str) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", account.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        variables.extend(self.certificate.iter().map(|path| ("SSL_CERT_FILE", path.display().to_string())));
        variables
    }
}

fn is_healthy(port: u16, tls: bool) -> bool {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    if tls {
        // The server listens only once it is ready; the first call does the handshake.
        return true;
    }
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let request = format!("GET /_ministack/health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut status = [0; 12];
    stream.read_exact(&mut status).is_ok() && &status == b"HTTP/1.1 200"
}

impl Drop for LocalAws {
    fn drop(&mut self) {
        // Closing standard input stops the server.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
