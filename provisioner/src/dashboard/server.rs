//! The server behind the page, and the page as a file.
//!
//! There is no sign-in: who reaches it reads the counts. So it listens on the machine alone unless told otherwise, and takes
//! requests only by names that are its own: a page of somebody else's in the same browser cannot reach it under a name
//! that it has pointed here (DNS rebinding).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
use tokio::net::TcpListener;

use super::cache::{Cache, Hours, Trigger};
use super::frame::Frame;
use super::page::{self, Found, SCRIPT, STYLE, Source};
use super::view::View;
use crate::aws::Aws;
use crate::config::Pipeline;
use crate::counts::period::Period;
use crate::error::{Error, ErrorKind};
use crate::shutdown::Shutdown;

/// What a page may load and do: what comes from here, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Read when the server starts, so that the first page of a month is drawn at once.
const WARM: &str = "last=30d";

/// How long the start waits for that.
const WARMING: Duration = Duration::from_secs(3);

/// The pause after which an overloaded server asks the browser to repeat its request.
const RETRY_AFTER_SECONDS: u32 = 2;

/// The header of a request that the page makes by itself.
const ANEW: HeaderName = HeaderName::from_static("x-dashboard-anew");

/// How the server is reached.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Names by which it may be asked, beside addresses and `localhost`.
    pub(crate) hosts: BTreeSet<String>,
}

/// A dashboard of one pipeline.
#[derive(Debug)]
pub(crate) struct Dashboard {
    cache: Arc<Cache>,
    pipeline: String,
    region: String,
    hosts: BTreeSet<String>,
}

/// What was read for a view.
struct Read {
    period: Period,
    frame: Frame,
    age_seconds: u64,
    is_fresh: bool,
}

impl Read {
    fn found(&self) -> Found<'_> {
        let Self { period, frame, age_seconds, is_fresh } = self;
        Found { period, frame, age_seconds: *age_seconds, is_fresh: *is_fresh }
    }
}

impl Dashboard {
    /// Of this pipeline.
    pub(crate) fn new(aws: Aws, pipeline: &Pipeline) -> Self {
        Self {
            cache: Cache::new(aws, pipeline.table.counts.clone()),
            pipeline: pipeline.name.clone(),
            region: pipeline.region.clone(),
            hosts: BTreeSet::new(),
        }
    }

    /// Reads what a view shows.
    async fn read(&self, view: &View, trigger: Trigger) -> Result<Read, Error> {
        let period = view.period()?;
        let before = view.compare.then(|| period.before()).transpose()?;
        // One reading of both, so that both are from the same moment.
        let length = period.hours().count();
        let hours = period.hours().chain(before.iter().flat_map(Period::hours)).collect();
        let Hours { mut counts, age, is_fresh } = self.cache.read(hours, trigger).await?;
        let earlier = Hours { counts: counts.split_off(length), age, is_fresh };
        let hours = Hours { counts, age, is_fresh };
        let frame = Frame::new(&hours, &period, before.as_ref().map(|before| (&earlier, before)));
        Ok(Read { period, frame, age_seconds: age.as_secs(), is_fresh })
    }

    fn source(&self, alone: bool) -> Source<'_> {
        Source { pipeline: &self.pipeline, region: &self.region, alone }
    }

    /// Writes the page of a view into one file that needs nothing else.
    ///
    /// # Errors
    /// What AWS answered; that the view or the file is none.
    pub(crate) async fn write(&self, view: &View, file: &Path) -> Result<(), Error> {
        let read = self.read(view, Trigger::Visitor).await?;
        let failed = |source| {
            Error::io(
                format!("write {}", file.display()),
                "pass --out with a file in a folder that is there and can be written to",
                &source,
            )
        };
        let page = self.source(true).page(view, Ok(&read.found()));
        let page = page.map_err(|error| failed(std::io::Error::other(error)))?;
        std::fs::write(file, page).map_err(failed)
    }

    /// Serves pages until a signal comes. `ready` hears where it listens.
    ///
    /// # Errors
    /// The address cannot be listened on.
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
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        if let Ok(period) = View::of(WARM).period() {
            let cache = Arc::clone(&self.cache);
            let warm = tokio::spawn(async move { cache.read(period.hours().collect(), Trigger::Visitor).await });
            // Where it takes long, it goes on beside the first pages. A failure shows on these.
            let _ = tokio::time::timeout(WARMING, warm).await;
        }
        ready(listener.local_addr().map_err(failed)?)?;
        let dashboard = Arc::new(self);
        let router = Router::new()
            .route("/", get(page))
            .route("/counts.csv", get(csv))
            .route("/style.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
            .route("/script.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
            .fallback(|| async { (StatusCode::NOT_FOUND, "There is nothing here; the dashboard is at /.\n") })
            .layer(middleware::from_fn_with_state(Arc::clone(&dashboard), guard))
            .with_state(dashboard);
        axum::serve(listener, router)
            .with_graceful_shutdown(async move {
                let _signal = stop.wait().await;
            })
            .await
            .map_err(failed)
    }

    /// Whether a request by this name is meant for us. An address cannot be pointed at by somebody else's name.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Takes only requests by our own names, and says what browsers may do with the answers.
async fn guard(State(dashboard): State<Arc<Dashboard>>, request: Request, next: Next) -> Response {
    let (is_ours, unseen) = {
        let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // A page of somebody else's may link here, but not make us work unseen.
        let unseen = header("sec-fetch-site") == Some("cross-site") && header("sec-fetch-mode") != Some("navigate");
        (header("host").is_some_and(|host| dashboard.is_ours(host)), unseen)
    };
    let mut response = if !is_ours {
        let text = "The dashboard does not answer to this name. To let it, start it with --host NAME.\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    } else if unseen {
        (StatusCode::FORBIDDEN, "The dashboard is not for other sites' pages.\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let ours: [(HeaderName, &str); 6] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in ours {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// The HTTP status of an error, and the seconds after which a repetition makes sense.
fn status(error: &Error) -> (StatusCode, Option<u32>) {
    match error.kind() {
        ErrorKind::Usage | ErrorKind::Config => (StatusCode::BAD_REQUEST, None),
        // The counts table is missing, or an event is unknown.
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, None),
        ErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER_SECONDS)),
        ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, None),
        ErrorKind::Aws | ErrorKind::Conflict => (StatusCode::BAD_GATEWAY, None),
        ErrorKind::Incomplete
        | ErrorKind::Interrupted { .. }
        | ErrorKind::BrokenPipe
        | ErrorKind::Io
        | ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None),
    }
}

/// Adds `Retry-After` to a response that can be repeated.
fn with_retry(mut response: Response, seconds: Option<u32>) -> Response {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn page(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let view = View::of(&query.unwrap_or_default());
    let trigger = if headers.contains_key(ANEW) { Trigger::Refresh } else { Trigger::Visitor };
    let read = dashboard.read(&view, trigger).await;
    let (code, retry_after) = read.as_ref().map_or_else(status, |_| (StatusCode::OK, None));
    // Drawing is work for a processor, not for the loop that serves the others.
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
            let headers = [
                (CONTENT_TYPE, "text/csv; charset=utf-8"),
                (CONTENT_DISPOSITION, "attachment; filename=\"counts.csv\""),
            ];
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
    use aws_config::BehaviorVersion;

    use super::*;

    #[tokio::test]
    async fn only_our_own_names_are_answered() {
        let config = aws_config::SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
        let aws = Aws::new(&config);
        let dashboard = Dashboard {
            cache: Cache::new(aws, "counts".to_owned()),
            pipeline: "p".to_owned(),
            region: "r".to_owned(),
            hosts: BTreeSet::from(["counts.example.com".to_owned()]),
        };
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3", "Counts.Example.com:80"]
        {
            assert!(dashboard.is_ours(host), "{host}");
        }
        for host in
            ["", "evil.example.net", "localhost.evil.example.net:8080", "127.0.0.1.evil.example.net", "[::1", "[x]"]
        {
            assert!(!dashboard.is_ours(host), "{host}");
        }
    }
}
