//! A local AWS on a free port, which ends with the process that started it, however that ends.

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

/// It is up within three seconds; a busy machine gets more.
const START: Duration = Duration::from_secs(60);
/// Between two looks whether it is up.
const LOOK: Duration = Duration::from_millis(50);

/// The region of every test, and of the demo.
pub const REGION: &str = "us-east-1";

/// A running local AWS. Dropping it stops it and deletes its files.
pub struct LocalAws {
    child: Child,
    port: u16,
    folder: Option<TempDir>,
    /// Where its certificate is, if it speaks TLS.
    certificate: Option<PathBuf>,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The service, and the action or for lack of it the HTTP method.
    pub name: String,
    /// Whether it changes something.
    pub writes: bool,
}

/// As many as LookupEvents gives.
const MOST_EVENTS: usize = 50;

/// Whether it speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// It does not.
    Http,
    /// It does, with a certificate made for it.
    Https,
}

/// The project's root.
#[must_use]
pub fn root() -> &'static Path {
    // `tests` lies in it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A program that the build made, beside the running one.
///
/// # Errors
/// It is not there.
pub fn built(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("where is this program?")?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `make build`"))
}

impl LocalAws {
    /// Starts one on a free port, with files of its own.
    ///
    /// # Errors
    /// The environment is not installed, or it does not come up.
    pub fn start(scheme: Scheme) -> Result<Self> {
        Self::start_with(scheme, None)
    }

    /// Starts one whose functions call AWS at `endpoint`, where a proxy may stand that changes requests: it does not check
    /// who calls.
    ///
    /// # Errors
    /// As [`LocalAws::start`].
    pub fn start_behind(endpoint: &str) -> Result<Self> {
        Self::start_with(Scheme::Http, Some(endpoint))
    }

    fn start_with(scheme: Scheme, functions: Option<&str>) -> Result<Self> {
        let mut said = String::new();
        // The port is free now; should somebody take it before the server does, the next try takes another.
        for _ in 0..3 {
            let folder = TempDir::with_prefix("local-aws-").context("failed to make a temporary folder")?;
            let port = TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).context("no free port")?.port();
            let mut aws = Self::spawn(port, folder.path(), true, scheme, functions)?;
            if aws.wait()? {
                aws.folder = Some(folder);
                return Ok(aws);
            }
            // Before the folder goes with the one that failed.
            said = std::fs::read_to_string(folder.path().join("log")).unwrap_or(said);
        }
        bail!("the local AWS did not start:\n{said}")
    }

    /// Runs one on this port, in the foreground, until it ends.
    ///
    /// # Errors
    /// As [`LocalAws::start`]; also that the port is taken.
    pub fn run(port: u16, announce: impl FnOnce(&Self)) -> Result<()> {
        ensure!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "port {port} is in use: stop what listens there, or choose another with PORT="
        );
        let folder = TempDir::with_prefix("local-aws-").context("failed to make a temporary folder")?;
        let mut aws = Self::spawn(port, folder.path(), false, Scheme::Http, None)?;
        ensure!(aws.wait()?, "the local AWS did not start");
        announce(&aws);
        // `wait` would close its standard input, and with that stop it.
        let open = aws.child.stdin.take();
        let status = aws.child.wait().context("failed to wait for the local AWS")?;
        drop(open);
        ensure!(status.success(), "the local AWS ended with {status}");
        Ok(())
    }

    fn spawn(port: u16, folder: &Path, quiet: bool, scheme: Scheme, functions: Option<&str>) -> Result<Self> {
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
        if let Some(endpoint) = functions {
            command.args(["--functions-endpoint", endpoint]);
        }
        if quiet {
            let log = std::fs::File::create(folder.join("log")).context("failed to make a log file")?;
            let again = log.try_clone().context("failed to make a log file")?;
            command.stdout(log).stderr(again);
        }
        let child = command.spawn().context("failed to start the local AWS")?;
        Ok(Self { child, port, folder: None, certificate })
    }

    /// Waits until it answers; false where it ended or never does.
    fn wait(&mut self) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < START {
            if self.child.try_wait().context("failed to look at the local AWS")?.is_some() {
                return Ok(false);
            }
            if is_healthy(self.port, self.certificate.is_some()) {
                return Ok(true);
            }
            std::thread::sleep(LOOK);
        }
        Ok(false)
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// An HTTP client that trusts its certificate.
    fn http_client(&self) -> Result<SharedHttpClient> {
        let Some(path) = &self.certificate else { return Ok(Builder::new().build_http()) };
        let pem = std::fs::read(path).context("failed to read the certificate")?;
        let trust = tls::TrustStore::empty().with_pem_certificate(pem);
        let context = tls::TlsContext::builder().with_trust_store(trust).build().context("failed to trust")?;
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        Ok(Builder::new().tls_provider(ring).tls_context(context).build_https())
    }

    /// A configuration for the SDK's clients, as the root of `account`.
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

    /// The calls that an account's root has made since `since`, as CloudTrail's LookupEvents tells of them.
    ///
    /// # Errors
    /// It does not answer as CloudTrail does, or there were more than it tells of.
    pub fn calls(&self, account: &str, since: SystemTime) -> Result<Vec<Recorded>> {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).context("before 1970")?.as_secs_f64();
        let mut calls = Vec::new();
        for service in ["s3", "dynamodb", "iam", "lambda", "logs", "sqs", "sts", "tagging"] {
            let attribute = |key: &str, value: &str| json!({ "AttributeKey": key, "AttributeValue": value });
            let source = format!("{service}.amazonaws.com");
            let attributes = [attribute("AccessKeyId", account), attribute("EventSource", &source)];
            let key = format!("AWS4-HMAC-SHA256 Credential={account}/20150804/{REGION}/cloudtrail/aws4_request");
            let mut answer = ureq::post(self.endpoint())
                .header("x-amz-target", "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents")
                .header("content-type", "application/x-amz-json-1.1")
                .header("authorization", format!("{key}, SignedHeaders=host, Signature=none"))
                .send_json(json!({ "LookupAttributes": attributes, "StartTime": since, "MaxResults": MOST_EVENTS }))
                .context("failed to ask for the calls")?;
            let answer: Json = answer.body_mut().read_json().context("failed to read the calls")?;
            let events = answer["Events"].as_array().context("no list of calls")?;
            ensure!(events.len() < MOST_EVENTS, "{service} was called more often than can be told");
            for event in events {
                let details: Json = serde_json::from_str(event["CloudTrailEvent"].as_str().unwrap_or_default())?;
                // In the query protocol the action is a parameter, which the server's record leaves there.
                let action = details["requestParameters"]["Action"].as_str();
                let name = action.or_else(|| event["EventName"].as_str()).context("a call without a name")?;
                let reads = ["Get", "List", "Describe", "Head", "Simulate"].iter().any(|verb| name.starts_with(verb));
                let writes = !reads && event["ReadOnly"] != "true";
                calls.push(Recorded { name: format!("{service}:{name}"), writes });
            }
        }
        Ok(calls)
    }

    /// What the server and the functions that it runs wrote, where it is kept.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.folder.as_ref().map(|folder| folder.path().join("log"));
        path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }

    /// The most memory that any process of a function has had, in KiB, of those that are still there.
    ///
    /// # Errors
    /// There is none.
    pub fn peak_of_functions(&self) -> Result<u64> {
        let folder = self.folder.as_ref().context("the folder of the local AWS")?.path();
        let peaks = std::fs::read_dir("/proc").context("failed to list processes")?.filter_map(|entry| {
            let process = entry.ok()?.path();
            // The code of a function is unpacked below the server's own temporary folder.
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

    /// The variables with which a program works in `account` here, and nowhere else.
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
        // It listens once it is up, and the first call shakes hands.
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
        // The end of its standard input stops the server; `wait` closes it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
