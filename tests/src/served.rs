//! The dashboard, served by the built provisioner on a free port, and a browser to look at it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities as _;
use thirtyfour::prelude::*;

use crate::pipeline::Pipeline;

/// A browser starts within seconds; a busy machine gets more.
const START: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// What browsers are called, the driver's own choice last.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A running dashboard. Dropping it stops it.
pub struct Served {
    child: Child,
    /// Its address, without a slash at the end: `http://127.0.0.1:8080`.
    pub url: String,
    /// All that it said of itself when it started.
    pub said: String,
}

impl Served {
    /// Starts one on a free port, with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(pipeline: &Pipeline<'_>, listen: &str, args: &[&str]) -> Result<Self> {
        let mut command = pipeline.command(&[&["dashboard", "--listen", listen], args].concat())?;
        let mut child = command.stdout(Stdio::piped()).spawn().context("failed to start the dashboard")?;
        let mut out = BufReader::new(child.stdout.take().context("its output")?);
        let mut said = String::new();
        while !said.contains("Ctrl-C") && out.read_line(&mut said).context("failed to read where it is")? > 0 {}
        let url = said.lines().next().and_then(|line| line.split_once("http://")).context("no address")?.1;
        let url = format!("http://{}", url.split('/').next().unwrap_or_default());
        Ok(Self { child, url, said })
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.child.wait().context("failed to wait for the dashboard")?.code())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A headless browser with files of its own. Dropping it stops it.
pub struct Browser {
    /// The session.
    pub page: WebDriver,
    _driver: Group,
    /// What it has downloaded.
    pub downloads: TempDir,
    _profile: TempDir,
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// There is none, or it does not start.
    pub async fn start() -> Result<Self> {
        let program = on_path("chromedriver").context(
            "there is no chromedriver on the PATH: install Chromium with it (Debian: chromium, chromium-driver)",
        )?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).context("no free port")?.port();
        let (downloads, profile) = (TempDir::with_prefix("downloads-")?, TempDir::with_prefix("browser-")?);
        // A group of its own: whatever the driver has started ends with it.
        let driver = Command::new(program)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("HOME", profile.path())
            .process_group(0)
            .spawn()
            .context("failed to start chromedriver")?;
        let driver = Group(driver);
        let started = Instant::now();
        while ureq::get(format!("http://127.0.0.1:{port}/status")).call().is_err() {
            ensure!(started.elapsed() < START, "chromedriver did not start");
            tokio::time::sleep(LOOK).await;
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
            // Dates are typed in the order of a language.
            "--lang=en-US",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000",
            &profile_argument,
        ] {
            capabilities.add_arg(argument)?;
        }
        // It has no sandbox for root, which is who runs tests in containers; it sees pages of ours alone.
        capabilities.add_arg("--no-sandbox")?;
        capabilities.add_experimental_option(
            "prefs",
            json!({ "download.default_directory": downloads.path(), "download.prompt_for_download": false }),
        )?;
        let page = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities).await?;
        Ok(Self { page, _driver: driver, downloads, _profile: profile })
    }

    /// Runs one of the browser's own commands (Chrome DevTools Protocol).
    ///
    /// # Errors
    /// It fails.
    pub async fn tool(&self, command: &str, arguments: Value) -> Result<()> {
        self.page.cdp().send_raw(command, arguments).await.with_context(|| command.to_owned())?;
        Ok(())
    }

    /// A script's value.
    ///
    /// # Errors
    /// The script fails.
    pub async fn value(&self, script: &str) -> Result<Value> {
        Ok(self.page.execute(script, Vec::new()).await.with_context(|| script.to_owned())?.json().clone())
    }

    /// Waits until a script's value is true.
    ///
    /// # Errors
    /// It does not become true in time.
    pub async fn until(&self, script: &str) -> Result<()> {
        let started = Instant::now();
        // While a page goes and another comes, there is nothing to run scripts in.
        while !matches!(self.value(script).await, Ok(Value::Bool(true))) {
            let at = self.page.current_url().await.map(|url| url.to_string()).unwrap_or_default();
            ensure!(started.elapsed() < START * 2, "not true at {at}: {script}");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The text of the element that a selector finds.
    ///
    /// # Errors
    /// There is none.
    pub async fn text(&self, selector: &str) -> Result<String> {
        Ok(self.page.find(By::Css(selector)).await?.text().await?)
    }

    /// A picture of the page.
    ///
    /// # Errors
    /// It cannot be taken or written.
    pub async fn picture(&self, file: &Path) -> Result<()> {
        Ok(self.page.screenshot(file).await?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver is ended with all that it has started, so that nobody needs to wait for the end of a session.
        let _ = self.page.clone().leak();
    }
}

/// A process and what it has started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}
