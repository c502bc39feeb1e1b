//! The HTTP server of the dashboard, and its export as a file.
//!
//! Without a [`Token`] or a [`Password`] there is no authentication: anyone who can reach the server can read the counts.
//! It therefore listens on localhost by default, and accepts requests only under known host names, so that a foreign page
//! in the same browser cannot reach it under a name that it has pointed here (DNS rebinding).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::breakdowns::{Breakdowns, Values};
use super::cache::{Cache, Spans, Trigger};
use super::frame::Frame;
use super::page::{self, Found, SCRIPT, STYLE, Source};
use super::password::Password;
use super::skips::Skips;
use super::token::Token;
use super::view::View;
use crate::aws::Aws;
use crate::config::Pipeline;
use crate::counts::period::Period;
use crate::counts::{Measure, Progress, Reader, Records, Skipped};
use crate::error::{Error, ErrorKind};
use crate::private_file;
use crate::shutdown::Shutdown;

/// The Content-Security-Policy: a page may load and submit to this server only.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The view whose hours are read at startup, so that the first page of a month is drawn immediately.
const WARM: &str = "last=30d";

/// The time that the startup waits for the hours of [`WARM`].
const WARMING: Duration = Duration::from_secs(3);

/// The pause after which an overloaded server asks the browser to repeat its request.
const RETRY_AFTER_SECONDS: u32 = 2;

/// The maximum number of connections; further ones wait until one ends.
const MOST_CONNECTIONS: usize = 256;
/// The time in which a connection must send the headers of its next request; idle connections end after it too.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// The time that answers may take after a signal to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// The pause after an accept that failed, for example since the process has too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The header of a request with which the page refreshes itself.
const REFRESH: HeaderName = HeaderName::from_static("x-dashboard-refresh");

/// The addresses and host names of the server.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The address to listen on.
    pub(crate) listen: SocketAddr,
    /// The accepted hosts, in addition to addresses and `localhost`.
    pub(crate) hosts: Vec<AcceptedHost>,
    /// The token that visitors need, if they do.
    pub(crate) token: Option<Token>,
    /// The password that visitors need, if they do.
    pub(crate) password: Option<Password>,
}

/// A host that requests may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AcceptedHost {
    /// The name as browsers send it: in small letters, and an international one in Punycode.
    name: String,
    /// The port; `None` accepts every port.
    port: Option<u16>,
}

impl AcceptedHost {
    /// Parses the value of a `Host` header, which has a name or an address, and perhaps a port.
    fn of_header(host: &str) -> Option<Self> {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map(|(address, port)| (address, port.strip_prefix(':')))?,
            None => host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
        };
        let port = port.map(str::parse).transpose().ok()?;
        Some(Self { name: name.trim_end_matches('.').to_ascii_lowercase(), port })
    }

    /// Returns whether this rule accepts a request for `asked`.
    fn accepts(&self, asked: &Self) -> bool {
        self.name == asked.name && (self.port.is_none() || self.port == asked.port)
    }
}

impl FromStr for AcceptedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write a host name, such as counts.example.com or counts.example.com:8443, without https://";
        let parsed = Self::of_header(text).ok_or(help)?;
        let name = idna::domain_to_ascii_strict(&parsed.name).map_err(|_| help)?;
        if name.is_empty() { Err(help.to_owned()) } else { Ok(Self { name, ..parsed }) }
    }
}

/// The dashboard of one pipeline.
#[derive(Debug)]
pub(crate) struct Dashboard {
    cache: Arc<Cache>,
    breakdowns: Breakdowns,
    skips: Skips,
    pipeline: String,
    region: String,
    /// The fields that are summed.
    sums: Vec<String>,
    hosts: Vec<AcceptedHost>,
    token: Option<Token>,
    password: Option<Password>,
}

/// The counts of a view.
struct Read {
    period: Period,
    before: Option<Period>,
    frame: Frame,
    age_seconds: u64,
    is_fresh: bool,
    /// The objects with skipped lines, if they were read.
    skips: Option<Result<Arc<[Skipped]>, Error>>,
    /// The breakdowns of the event, if the page has one.
    breakdowns: Vec<Values>,
}

impl Read {
    fn found(&self) -> Found<'_> {
        let Self { period, before, frame, age_seconds, is_fresh, skips, breakdowns } = self;
        let (before, skips) = (before.as_ref(), skips.as_ref().map(|skips| skips.as_deref()));
        Found { period, before, frame, age_seconds: *age_seconds, is_fresh: *is_fresh, skips, breakdowns }
    }
}

impl Dashboard {
    pub(crate) fn new(aws: &Aws, pipeline: &Pipeline) -> Self {
        let reader = Reader::new(aws, pipeline);
        Self {
            cache: Cache::new(reader.clone()),
            breakdowns: Breakdowns::new(reader, pipeline.rollup.by.clone()),
            skips: Skips::new(Records::new(aws, pipeline)),
            pipeline: pipeline.name.clone(),
            region: pipeline.region.clone(),
            sums: pipeline.rollup.sum.clone(),
            hosts: Vec::new(),
            token: None,
            password: None,
        }
    }

    /// Returns the progress of all readings.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.cache.progress()
    }

    /// Reads the counts of a view, the breakdowns of its event, and the skipped lines, if they are there soon or the page
    /// `waits`.
    async fn read_page(&self, view: &View, trigger: Trigger, waits: bool) -> Result<Read, Error> {
        let (read, breakdowns) = (self.read(view, trigger), self.breakdowns.read(view));
        let (read, breakdowns, skips) = tokio::join!(read, breakdowns, self.skips.read(waits));
        Ok(Read { skips, breakdowns, ..read? })
    }

    /// Reads the counts of a view.
    async fn read(&self, view: &View, trigger: Trigger) -> Result<Read, Error> {
        let period = view.period()?;
        let before = view.compare.then(|| period.before()).transpose()?;
        // One read of both periods, so that both have the same age.
        let length = period.spans_by_part().count();
        let spans = period.spans_by_part().chain(before.iter().flat_map(Period::spans_by_part)).collect();
        let mut spans = self.cache.read(spans, &view.measure(), trigger).await?;
        let previous = Spans { counts: spans.counts.split_off(length), ..spans };
        let Spans { age, is_fresh, .. } = spans;
        let frame = Frame::new(&spans, &period, before.as_ref().map(|before| (&previous, before)))?;
        let (skips, breakdowns) = (None, Vec::new());
        Ok(Read { period, before, frame, age_seconds: age.as_secs(), is_fresh, skips, breakdowns })
    }

    fn source(&self, standalone: bool) -> Source<'_> {
        Source { pipeline: &self.pipeline, region: &self.region, sums: &self.sums, standalone }
    }

    /// Exports a view as one self-contained file.
    ///
    /// # Errors
    /// An invalid view, a failed AWS call, or a file that cannot be written.
    pub(crate) async fn write(&self, view: &View, file: &Path) -> Result<(), Error> {
        let read = self.read_page(view, Trigger::Visitor, true).await?;
        let failed = |source| {
            Error::io(
                format!("write {}", file.display()),
                "pass --out with a file in an existing, writable folder",
                &source,
            )
        };
        let page = self.source(true).page(view, Ok(&read.found()));
        let page = page.map_err(|error| failed(std::io::Error::other(error)))?;
        private_file::write(file, page.as_bytes()).map_err(failed)
    }

    /// Serves pages until a signal arrives; calls `ready` with the address once the server listens.
    ///
    /// # Errors
    /// The server cannot listen on the address, or `ready` failed.
    pub(crate) async fn serve(
        mut self,
        settings: Settings,
        stop: Shutdown,
        ready: impl FnOnce(SocketAddr) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |source| {
            Error::io(format!("listen on {}", settings.listen), "choose another address or port with --listen", &source)
        };
        self.hosts = settings.hosts;
        self.token = settings.token;
        self.password = settings.password;
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        if let Ok(period) = View::of(WARM).period() {
            let cache = Arc::clone(&self.cache);
            let warm = tokio::spawn(async move {
                cache.read(period.spans_by_part().collect(), &Measure::Count, Trigger::Start).await
            });
            // After this time, reading continues while pages are served, which show any failure.
            let _ = tokio::time::timeout(WARMING, warm).await;
        }
        ready(listener.local_addr().map_err(failed)?)?;
        let dashboard = Arc::new(self);
        let router = Router::new()
            .route("/", get(page))
            .route("/counts.csv", get(csv))
            .route("/style.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
            .route("/script.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
            .fallback(|| async { (StatusCode::NOT_FOUND, "Not found. The dashboard is at /.\n") })
            .layer(middleware::from_fn_with_state(Arc::clone(&dashboard), guard))
            .with_state(dashboard);
        accept(&listener, &router, &stop).await;
        Ok(())
    }

    /// Returns whether requests under this host name are accepted. An IP address always is: DNS rebinding needs a name.
    fn accepts(&self, host: &str) -> bool {
        AcceptedHost::of_header(host).is_some_and(|asked| {
            let is_local = asked.name == "localhost" || asked.name.parse::<IpAddr>().is_ok();
            is_local || self.hosts.iter().any(|host| host.accepts(&asked))
        })
    }
}

/// Answers requests until a signal arrives. Then idle connections end at once, and running answers get
/// [`STOP_WITHIN`].
async fn accept(listener: &TcpListener, router: &Router, stop: &Shutdown) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let free = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let running = GracefulShutdown::new();
    let mut stopped = pin!(stop.wait());
    let next = || async {
        // Fails only if the semaphore is closed, which never happens here.
        let place = Arc::clone(&free).acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, place),
                Err(_) => sleep(ACCEPT_AGAIN).await,
            }
        }
    };
    loop {
        let (stream, place): (TcpStream, _) = tokio::select! {
            next = next() => next,
            _ = &mut stopped => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = running.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A connection that breaks concerns its visitor alone.
            let _ = connection.await;
            drop(place);
        });
    }
    let _ = timeout(STOP_WITHIN, running.shutdown()).await;
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// The page that started a request, by the Fetch Metadata headers, which pages cannot forge (W3C, Fetch Metadata Request
/// Headers). Programs other than browsers do not send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A page of this server, the address bar, or a program.
    Own,
    /// A link of another site, or of another port of this machine, that was opened in its own tab.
    Link,
    /// Anything else of another site or port: a frame, a form, an image, a request in the background.
    Foreign,
}

impl Origin {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match (header("sec-fetch-site"), header("sec-fetch-mode"), header("sec-fetch-dest")) {
            // Browsers tell it only to HTTPS and to addresses of their own machine. Others tell the page's address, but
            // a page may forbid that.
            (None, ..) => {
                let pages = [header("origin"), header("referer")];
                let is_own = |page: &str| page.split('/').nth(2) == header("host");
                if pages.into_iter().flatten().all(is_own) { Self::Own } else { Self::Link }
            }
            (Some("same-origin" | "none"), ..) => Self::Own,
            (_, Some("navigate"), None | Some("document")) => Self::Link,
            _ => Self::Foreign,
        }
    }
}

/// The page for a visitor who comes from elsewhere: reading costs money and time, so it takes a click.
#[derive(Template)]
#[template(path = "foreign.html")]
struct ForeignPage<'a> {
    query: &'a str,
}

fn foreign(query: &str) -> Response {
    match (ForeignPage { query }).render() {
        Ok(html) => ([(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Accepts only requests under known host names, and adds the security headers to the responses.
async fn guard(State(dashboard): State<Arc<Dashboard>>, request: Request, next: Next) -> Response {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    let mut response = if !host.is_some_and(|host| dashboard.accepts(host)) {
        let text = "The dashboard does not accept requests under this host name; to allow it, pass --host NAME.\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    } else if let Some(refused) = dashboard.token.as_ref().and_then(|token| token.check(request.headers(), query)) {
        refused
    } else if let Some(refused) = dashboard.password.as_ref().and_then(|password| password.check(request.headers())) {
        refused
    } else {
        match Origin::of(request.headers()) {
            Origin::Own => next.run(request).await,
            Origin::Link if request.uri().path() == "/" => foreign(query),
            Origin::Link | Origin::Foreign => {
                let text = "The dashboard does not accept requests of other sites and ports.\n";
                (StatusCode::FORBIDDEN, text).into_response()
            }
        }
    };
    let headers = response.headers_mut();
    let security: [(HeaderName, &str); 7] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in security {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Returns the HTTP status of an error, and the seconds to wait before a retry, if one makes sense.
fn status(error: &Error) -> (StatusCode, Option<u32>) {
    match error.kind() {
        ErrorKind::Usage | ErrorKind::Config => (StatusCode::BAD_REQUEST, None),
        ErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER_SECONDS)),
        ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, None),
        // A missing table is a state of AWS, not a mistake of the visitor.
        ErrorKind::Aws | ErrorKind::NotFound | ErrorKind::Conflict => (StatusCode::BAD_GATEWAY, None),
        ErrorKind::Incomplete
        | ErrorKind::Interrupted { .. }
        | ErrorKind::BrokenPipe
        | ErrorKind::Io
        | ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None),
    }
}

/// Adds `Retry-After` to the response if the request can be retried.
fn with_retry(mut response: Response, seconds: Option<u32>) -> Response {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn page(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let view = View::of(&query.unwrap_or_default());
    let trigger = if headers.contains_key(REFRESH) { Trigger::Refresh } else { Trigger::Visitor };
    let read = dashboard.read_page(&view, trigger, false).await;
    let (code, retry_after) = read.as_ref().map_or_else(status, |_| (StatusCode::OK, None));
    // Drawing is CPU-bound and would block the other requests of this thread.
    let drawn = tokio::task::spawn_blocking(move || {
        let found = read.as_ref().map(Read::found);
        dashboard.source(false).page(&view, found.as_ref().map_err(|error| *error))
    });
    match drawn.await.map_err(|error| error.to_string()).and_then(|page| page) {
        Ok(html) => with_retry((code, [(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(), retry_after),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

async fn csv(State(dashboard): State<Arc<Dashboard>>, RawQuery(query): RawQuery) -> Response {
    let view = View::of(&query.unwrap_or_default());
    match dashboard.read(&view, Trigger::Visitor).await {
        Ok(read) => {
            let disposition = format!("attachment; filename=\"{}\"", page::csv_name(&read.period));
            let headers = [(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, disposition)];
            (headers, page::csv(&view, &read.found())).into_response()
        }
        Err(error) => {
            let (code, retry_after) = status(&error);
            with_retry((code, format!("{error}\n")).into_response(), retry_after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_under_an_unknown_host_name_is_refused() {
        let dashboard = Dashboard {
            cache: Cache::new(Reader::example()),
            breakdowns: Breakdowns::new(Reader::example(), Vec::new()),
            skips: Skips::new(Records::example()),
            pipeline: "p".to_owned(),
            region: "r".to_owned(),
            sums: Vec::new(),
            hosts: ["counts.example.com", "Bücher.example", "other.example.com:8443"]
                .map(|host| host.parse().expect("a host"))
                .into(),
            token: None,
            password: None,
        };
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "10.1.2.3",
            "Counts.Example.com:80",
            "counts.example.com.",
            "xn--bcher-kva.example:8080",
            "other.example.com:8443",
        ] {
            assert!(dashboard.accepts(host), "{host}");
        }
        for host in [
            "",
            "evil.example.net",
            "localhost.evil.example.net:8080",
            "127.0.0.1.evil.example.net",
            "[::1",
            "[x]",
            "other.example.com",
            "other.example.com:80",
            "counts.example.com:port",
        ] {
            assert!(!dashboard.accepts(host), "{host}");
        }
    }

    #[test]
    fn request_that_another_page_started_reads_nothing() {
        let with = |headers: &[(&'static str, &str)]| {
            let one = |(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
            };
            Origin::of(&headers.iter().map(one).collect())
        };
        let of = |site, mode, destination| {
            with(&[("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", destination)])
        };
        assert_eq!(with(&[]), Origin::Own);
        let host = ("host", "192.0.2.1:8080");
        assert_eq!(with(&[host, ("referer", "http://192.0.2.1:8080/?last=7d")]), Origin::Own);
        assert_eq!(with(&[host, ("referer", "http://192.0.2.1:9090/")]), Origin::Link);
        assert_eq!(with(&[host, ("origin", "null")]), Origin::Link);
        assert_eq!(of("none", "navigate", "document"), Origin::Own);
        assert_eq!(of("same-origin", "cors", "empty"), Origin::Own);
        for site in ["cross-site", "same-site"] {
            assert_eq!(of(site, "navigate", "document"), Origin::Link, "{site}");
            for (mode, destination) in [
                ("navigate", "iframe"),
                ("navigate", "object"),
                ("no-cors", "image"),
                ("no-cors", "empty"),
                ("cors", "empty"),
            ] {
                assert_eq!(of(site, mode, destination), Origin::Foreign, "{site} {mode} {destination}");
            }
        }
    }

    #[test]
    fn accepted_host_that_is_no_name_is_refused() {
        for host in ["", "https://counts.example.com", "counts.example.com/path", "a b", ":80", "host:99999"] {
            assert!(host.parse::<AcceptedHost>().is_err(), "{host}");
        }
    }

    #[test]
    fn status_distinguishes_visitor_mistakes_overload_and_aws_failures() {
        let of = |kind| status(&Error::new(kind, "", "")).0.as_u16();
        assert_eq!([ErrorKind::Usage, ErrorKind::Config].map(of), [400, 400]);
        assert_eq!([ErrorKind::Aws, ErrorKind::NotFound, ErrorKind::Timeout].map(of), [502, 502, 504]);
        let (code, seconds) = status(&Error::new(ErrorKind::Busy, "", ""));
        let response = with_retry(code.into_response(), seconds);
        assert_eq!((response.status().as_u16(), response.headers().contains_key(RETRY_AFTER)), (503, true));
    }
}
