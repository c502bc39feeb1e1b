//! A proxy in front of the local AWS that counts a program's calls, and can end the program right before one of them
//! reaches the server, or right after the server has answered it.
//!
//! It passes requests on as they are, with their `Host`, so that their signatures hold.

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

/// A program that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(240);

/// Which side of a call the program is ended on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server never sees the call.
    Before,
    /// The server has done it, and the program does not hear of it.
    After,
}

/// When the program is ended: at its n-th call, counted from 1.
pub type End = Option<(usize, Side)>;

#[derive(Default)]
struct Run {
    child: Option<Child>,
    end: End,
    calls: usize,
    killed: bool,
}

/// A running proxy; it ends with the process that it is in.
pub struct Proxy {
    port: u16,
    run: Arc<Mutex<Run>>,
}

fn lock(run: &Mutex<Run>) -> MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    fn kill_at(&mut self, call: usize, side: Side) -> bool {
        if self.end == Some((call, side))
            && let Some(child) = &mut self.child
        {
            self.killed = child.kill().is_ok();
        }
        self.killed
    }
}

impl Proxy {
    /// Starts one in front of `upstream`, `http://127.0.0.1:PORT`, on a thread of its own.
    ///
    /// # Errors
    /// There is no free port or no thread.
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

    /// Runs a program with this proxy as its AWS, ending it at `end`, if it gets that far. Gives the number of its calls,
    /// and whether it was ended.
    ///
    /// # Errors
    /// It cannot be started, or hangs.
    pub fn run(&self, mut command: Command, end: End) -> Result<(usize, bool)> {
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port));
        let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
        let child = child.context("failed to start the program")?;
        *lock(&self.run) = Run { child: Some(child), end, ..Run::default() };
        let started = Instant::now();
        loop {
            let mut run = lock(&self.run);
            let child = run.child.as_mut().context("no program")?;
            if child.try_wait().context("failed to wait")?.is_some() {
                run.child = None;
                return Ok((run.calls, run.killed));
            }
            if started.elapsed() > LONGEST {
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
            // A connection that breaks is the program's end.
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
    let gone = || {
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
        if run.kill_at(call, Side::Before) {
            return Ok(gone());
        }
        call
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Ok(uri) = format!("http://{upstream}{path}").parse() else { return Ok(gone()) };
    parts.uri = uri;
    let Ok(response) = client.request(Request::from_parts(parts, Full::new(body))).await else { return Ok(gone()) };
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    if lock(&run).kill_at(call, Side::After) {
        return Ok(gone());
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}
