//! A proxy in front of the local AWS that counts a program's calls, and can kill the program right before a call
//! reaches the server, or right after the server has answered it.
//!
//! Requests are passed on unchanged, with their `Host`, so their signatures stay valid.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// The time after which a program is considered hung.
const RUN_TIMEOUT: Duration = Duration::from_secs(240);

/// The side of a call on which the program is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server never receives the call.
    Before,
    /// The server has executed the call, and the program does not receive the answer.
    After,
}

/// The call at which the program is killed, counted from 1, and the side; `None` lets it run to its end.
pub type KillAt = Option<(usize, Side)>;

#[derive(Default)]
struct Run {
    child: Option<Child>,
    kill_at: KillAt,
    calls: usize,
    killed: bool,
}

/// A running proxy; it ends with its process.
pub struct Proxy {
    port: u16,
    run: Arc<Mutex<Run>>,
}

fn lock(run: &Mutex<Run>) -> MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    fn kill_if_due(&mut self, call: usize, side: Side) -> bool {
        if self.kill_at == Some((call, side))
            && let Some(child) = &mut self.child
        {
            self.killed = child.kill().is_ok();
        }
        self.killed
    }
}

impl Proxy {
    /// Starts a proxy in front of `upstream`, `http://127.0.0.1:PORT`, on its own thread.
    ///
    /// # Errors
    /// No port is free, or no thread can be started.
    pub fn start(upstream: &str) -> Result<Self> {
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("no free port")?;
        listener.set_nonblocking(true).context("failed to listen")?;
        let port = listener.local_addr().context("failed to listen")?.port();
        let run = Arc::new(Mutex::new(Run::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let shared = Arc::clone(&run);
        std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || runtime.block_on(serve(listener, upstream, shared)))
            .context("failed to start a thread")?;
        Ok(Self { port, run })
    }

    /// Runs a program through this proxy and kills it at `kill_at`, if it gets that far. Returns the number of its
    /// calls, and true if it was killed.
    ///
    /// # Errors
    /// The program cannot be started, or hangs.
    pub fn run(&self, mut command: Command, kill_at: KillAt) -> Result<(usize, bool)> {
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port));
        let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
        let child = child.context("failed to start the program")?;
        *lock(&self.run) = Run { child: Some(child), kill_at, ..Run::default() };
        let started = Instant::now();
        loop {
            let mut run = lock(&self.run);
            let child = run.child.as_mut().context("no program")?;
            if child.try_wait().context("failed to wait")?.is_some() {
                run.child = None;
                return Ok((run.calls, run.killed));
            }
            if started.elapsed() > RUN_TIMEOUT {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the program hung after {} calls", run.calls);
            }
            drop(run);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn serve(listener: TcpListener, upstream: String, run: Arc<Mutex<Run>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, upstream, run) = (client.clone(), upstream.clone(), Arc::clone(&run));
        tokio::spawn(async move {
            let service = service_fn(move |request| pass(request, client.clone(), upstream.clone(), Arc::clone(&run)));
            // A broken connection means that the program was killed.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn pass(
    request: Request<Incoming>,
    client: Client<HttpConnector, Full<Bytes>>,
    upstream: String,
    run: Arc<Mutex<Run>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let bad_gateway = || {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    };
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let call = {
        let mut run = lock(&run);
        run.calls += 1;
        let call = run.calls;
        if run.kill_if_due(call, Side::Before) {
            return Ok(bad_gateway());
        }
        call
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Ok(uri) = format!("http://{upstream}{path}").parse() else { return Ok(bad_gateway()) };
    parts.uri = uri;
    let Ok(response) = client.request(Request::from_parts(parts, Full::new(body))).await else {
        return Ok(bad_gateway());
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    if lock(&run).kill_if_due(call, Side::After) {
        return Ok(bad_gateway());
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}
