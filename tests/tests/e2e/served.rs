//! The dashboard, served by the built provisioner on a free port, and a browser.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::pipeline::Pipeline;
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities as _;
use thirtyfour::prelude::*;

/// The timeout for the start of a browser, which takes seconds, and longer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Program names of browsers, in order of preference; if none is installed, the driver chooses.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A running dashboard. Dropping it stops it.
pub(crate) struct DashboardServer {
    child: Child,
    /// The address, without a trailing slash: `http://127.0.0.1:8080`.
    pub(crate) url: String,
    /// The text that it printed at startup.
    pub(crate) banner: String,
}

impl DashboardServer {
    /// Starts `provisioner dashboard --listen {listen}` with further arguments.
    pub(crate) fn start(pipeline: &Pipeline<'_>, listen: &str, args: &[&str]) -> Result<Self> {
        let mut command = pipeline.command(&[&["dashboard", "--listen", listen], args].concat())?;
        let mut child = command.stdout(Stdio::piped()).spawn().context("failed to start the dashboard")?;
        let mut out = BufReader::new(child.stdout.take().context("its output")?);
        let mut banner = String::new();
        while !banner.contains("Ctrl-C") && out.read_line(&mut banner).context("failed to read its address")? > 0 {}
        let url = banner.lines().next().and_then(|line| line.split_once("http://")).context("no address")?.1;
        let url = format!("http://{}", url.split('/').next().unwrap_or_default());
        Ok(Self { child, url, banner })
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process and returns the exit code.
    pub(crate) fn wait(&mut self) -> Result<Option<i32>> {
        Ok(self.child.wait().context("failed to wait for the dashboard")?.code())
    }
}

impl Drop for DashboardServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A headless browser with its own files. Dropping it stops it.
pub(crate) struct Browser {
    /// The session.
    pub(crate) page: WebDriver,
    _driver: ProcessGroup,
    /// The folder of downloads.
    pub(crate) downloads: TempDir,
    _profile: TempDir,
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Browser {
    /// Starts a browser.
    pub(crate) async fn start() -> Result<Self> {
        let program = on_path("chromedriver").context(
            "chromedriver is not on the PATH: install Chromium and its driver (Debian: chromium, chromium-driver)",
        )?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).context("no free port")?.port();
        let (downloads, profile) = (TempDir::with_prefix("downloads-")?, TempDir::with_prefix("browser-")?);
        // Its own process group, so that all processes of the driver end with it.
        let driver = Command::new(program)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("HOME", profile.path())
            .process_group(0)
            .spawn()
            .context("failed to start chromedriver")?;
        let driver = ProcessGroup(driver);
        let started = Instant::now();
        while ureq::get(format!("http://127.0.0.1:{port}/status")).call().is_err() {
            ensure!(started.elapsed() < START_TIMEOUT, "chromedriver did not start");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let mut capabilities = DesiredCapabilities::chrome();
        if let Some(browser) = BROWSERS.iter().find_map(|name| on_path(name)) {
            capabilities.set_binary(&browser.display().to_string())?;
        }
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        for argument in [
            "--headless",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
            "--disable-breakpad",
            // The language determines the order in which a date is typed.
            "--lang=en-US",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000",
            &profile_argument,
        ] {
            capabilities.add_arg(argument)?;
        }
        // Chromium has no sandbox for root, the usual user in containers. It opens only this project's pages.
        capabilities.add_arg("--no-sandbox")?;
        capabilities.add_experimental_option(
            "prefs",
            json!({ "download.default_directory": downloads.path(), "download.prompt_for_download": false }),
        )?;
        let page = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities).await?;
        Ok(Self { page, _driver: driver, downloads, _profile: profile })
    }

    /// Runs a command of the Chrome DevTools Protocol.
    pub(crate) async fn devtools(&self, command: &str, arguments: Value) -> Result<()> {
        self.page.cdp().send_raw(command, arguments).await.with_context(|| command.to_owned())?;
        Ok(())
    }

    /// Evaluates a script.
    pub(crate) async fn evaluate(&self, script: &str) -> Result<Value> {
        Ok(self.page.execute(script, Vec::new()).await.with_context(|| script.to_owned())?.json().clone())
    }

    /// Waits until a script evaluates to true.
    pub(crate) async fn wait_until(&self, script: &str) -> Result<()> {
        let started = Instant::now();
        // Scripts fail during a navigation.
        while !matches!(self.evaluate(script).await, Ok(Value::Bool(true))) {
            let at = self.page.current_url().await.map(|url| url.to_string()).unwrap_or_default();
            ensure!(started.elapsed() < START_TIMEOUT * 2, "not true at {at}: {script}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Returns the text of the first element that matches a selector.
    pub(crate) async fn text(&self, selector: &str) -> Result<String> {
        Ok(self.page.find(By::Css(selector)).await?.text().await?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The process group is killed, so closing the session would only cost time.
        let _ = self.page.clone().leak();
    }
}

/// A process group. Dropping it kills all of its processes.
struct ProcessGroup(Child);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}
