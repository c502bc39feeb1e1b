//! `provisioner dashboard` as a server: its numbers equal the recount, and its answers are safe.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::recount::{self, Counts};
use tests::samples::gzip;

use crate::common::send_signal;
use crate::counts::count_a_month;
use crate::pipeline;
use crate::served::DashboardServer;

/// Sends a request and returns status, headers and body.
fn get(url: &str, host: Option<&str>) -> Result<(u16, ureq::http::HeaderMap, String)> {
    let agent = ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build());
    let mut request = agent.get(url);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let mut answer = request.call().with_context(|| format!("failed to get {url}"))?;
    let body = answer.body_mut().read_to_string().context("failed to read the answer")?;
    Ok((answer.status().as_u16(), answer.headers().clone(), body))
}

/// Returns the text of the first element with this id, up to its first child element.
fn text_of(page: &str, id: &str) -> Result<String> {
    let rest = page.split_once(&format!("id=\"{id}\"")).with_context(|| format!("no {id} in the page"))?.1;
    let rest = rest.split_once('>').context("an open tag")?.1;
    Ok(rest.split('<').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn page_and_report_of_a_month_equal_the_recount() -> Result<()> {
    let pipeline = pipeline()?;
    let expected = count_a_month(&pipeline).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let query = "from=2015-07-05&to=2015-08-04&by=day&rows=500&event=Event+000&event=Event+007";
    let (status, _, page) = get(&format!("{}/?{query}", server.url), None)?;
    ensure!(status == 200, "{status}\n{page}");
    let total: u64 = expected.values().sum();
    ensure!(text_of(&page, "total")?.replace(',', "") == total.to_string(), "{}", text_of(&page, "total")?);
    let names: std::collections::BTreeSet<&String> = expected.keys().map(|(event, _)| event).collect();
    ensure!(text_of(&page, "distinct")? == names.len().to_string(), "{}", text_of(&page, "distinct")?);
    for name in names.iter().filter(|name| name.starts_with("Event")) {
        let count: u64 = expected.iter().filter(|((event, _), _)| *event == **name).map(|(_, count)| count).sum();
        let row = page.split_once(&format!("<bdi class=\"name\">{name}</bdi></a></th>"));
        let cell = row.with_context(|| format!("no row of {name}"))?.1.split_once("<td class=\"right\">");
        let shown = cell.context("a cell")?.1.split('<').next().unwrap_or_default().replace(',', "");
        ensure!(shown == count.to_string(), "{name}: {shown} is not {count}");
    }

    // The command line prints the same numbers.
    let args = ["query", "Event 000", "Event 007", "--from", "2015-07-05", "--to", "2015-08-04", "--by", "day"];
    let printed = pipeline.expect(0, &[&args[..], &["--format", "csv"]].concat())?.out;
    let (status, headers, csv) = get(&format!("{}/counts.csv?{query}", server.url), None)?;
    ensure!(status == 200 && csv == printed, "{csv}\n{printed}");
    ensure!(headers["content-type"] == "text/csv; charset=utf-8", "{headers:?}");
    ensure!(headers["content-disposition"] == "attachment; filename=\"counts-UTC.csv\"", "{headers:?}");
    // The CSV of stacked bars has the other events too, and that of a comparison the previous period.
    let bars = "from=2015-07-20&to=2015-08-03&chart=bars&compare=on&tz=Asia/Tokyo";
    let (_, headers, csv) = get(&format!("{}/counts.csv?{bars}", server.url), None)?;
    ensure!(headers["content-disposition"] == "attachment; filename=\"counts-Asia-Tokyo.csv\"", "{headers:?}");
    let first = csv.lines().next().unwrap_or_default();
    ensure!(first.contains(" others,") && first.contains(" others (before),"), "{first}");
    let sum: u64 = csv
        .lines()
        .skip(1)
        .flat_map(|line| line.split(',').skip(1).step_by(2))
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    let (_, _, page) = get(&format!("{}/?{bars}", server.url), None)?;
    ensure!(text_of(&page, "total")?.replace(',', "") == sum.to_string(), "{sum} is not in the page");
    ensure!(page.contains("Thin dashed line: the previous period, all drawn events together."), "{page}");
    // "Last 7 days" is the same period everywhere.
    let top: serde_json::Value =
        serde_json::from_str(&pipeline.expect(0, &["top", "--last", "7d", "--format", "json"])?.out)?;
    let (_, _, page) = get(&format!("{}/?last=7d", server.url), None)?;
    ensure!(page.contains(top["from"].as_str().context("a start")?), "{top} is not the period of the page");
    // Below a path of a proxy, every link and file is found.
    for absolute in ["href=\"/", "action=\"/", "src=\"/"] {
        ensure!(!page.contains(absolute), "{absolute}");
    }

    // An unknown event is named, with similar ones.
    let (status, _, page) = get(&format!("{}/?{query}&event=Evnt+007", server.url), None)?;
    ensure!(status == 200 && page.contains("was counted in this period") && page.contains("Similar names:"), "{page}");
    let (_, _, page) = get(&format!("{}/?from=2015-07-05&to=2015-08-04&rows=500&find=EVENT+00", server.url), None)?;
    ensure!(page.matches("data-event=").count() == 10, "{} rows", page.matches("data-event=").count());

    // The exported report has the same total and is self-contained.
    pipeline.expect(0, &["dashboard", "--out", "report.html", "--from", "2015-07-05", "--to", "2015-08-04"])?;
    let folder = pipeline.config().parent().context("a folder")?.to_owned();
    let report = std::fs::read_to_string(folder.join("report.html"))?;
    ensure!(text_of(&report, "total")?.replace(',', "") == total.to_string(), "{}", text_of(&report, "total")?);
    for outside in ["href=\"style", "src=\"", "href=\"http", "url("] {
        ensure!(!report.contains(outside), "the report needs {outside}");
    }
    Ok(())
}

#[tokio::test]
async fn page_with_hostile_names_escapes_them() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let long = "long ".repeat(200);
    let names = ["<script>alert(1)</script>", "\"quotes' & <b>bold</b>", "שלום עולם", "\u{202e}reversed", &long];
    let lines: String = names
        .iter()
        .map(|name| json!({ "type": "track", "event": name, "timestamp": "2015-08-04T12:00:00Z" }).to_string() + "\n")
        .collect();
    let (bytes, mut expected) = (gzip(lines.as_bytes()), Counts::new());
    recount::add(&mut expected, &bytes)?;
    pipeline.upload("segment-logs/x/1/a.gz", &bytes).await?;
    pipeline.wait_for_counts(&expected).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let mut query = "from=2015-08-04&to=2015-08-05&chart=bars&compare=on".to_owned();
    let encode =
        |name: &str| percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
    for name in names {
        query.push_str(&format!("&event={}", encode(name)));
    }
    // Names from the query are shown as well.
    query.push_str(&format!("&tz=UTC&event={}", encode("\"><img src=x onerror=alert(2)>")));
    let (status, headers, page) = get(&format!("{}/?{query}", server.url), None)?;
    ensure!(status == 200, "{page}");
    for bad in ["<script>alert", "<b>bold", "<img", "\u{202e}"] {
        ensure!(!page.contains(bad) || bad == "\u{202e}", "{bad} is in the page");
    }
    ensure!(page.contains("שלום עולם") && page.contains("\\u{202e}reversed"), "{page}");
    let policy = headers["content-security-policy"].to_str()?;
    ensure!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    ensure!(!page.contains(" style=\"") && !page.contains(" onclick"), "the page has code that the policy forbids");
    let (status, _, page) = get(&format!("{}/?tz={}", server.url, encode("<script>alert(3)</script>")), None)?;
    ensure!(status == 400 && !page.contains("<script>alert"), "{status} {page}");
    ensure!(page.contains("cannot be used") && page.contains("Europe/Berlin"), "{page}");
    Ok(())
}

#[tokio::test]
async fn request_with_unknown_host_is_rejected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let args = ["--host", "counts.example.com", "--host", "b\u{fc}cher.example:8443", "--last", "30d"];
    let mut server = DashboardServer::start(&pipeline, "127.0.0.1:0", &args)?;
    ensure!(server.banner.contains("/?last=30d") && !server.banner.contains("no sign-in"), "{}", server.banner);
    for path in ["/", "/counts.csv", "/style.css", "/script.js"] {
        let url = format!("{}{path}", server.url);
        ensure!(get(&url, None)?.0 == 200, "{url}");
        ensure!(get(&url, Some("counts.example.com"))?.0 == 200, "{url}");
        ensure!(get(&url, Some("xn--bcher-kva.example:8443"))?.0 == 200, "{url}");
        ensure!(get(&url, Some("xn--bcher-kva.example"))?.0 == 421, "{url}");
        let (status, headers, body) = get(&url, Some("evil.example.net"))?;
        ensure!(status == 421 && body.contains("--host NAME"), "{url}: {status} {body}");
        ensure!(headers.contains_key("content-security-policy"), "{headers:?}");
    }
    // A page of another site may link to the dashboard, but neither embed nor call it.
    for (mode, answer) in [("no-cors", 403), ("cors", 403), ("navigate", 200)] {
        let agent = ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build());
        let request = agent.get(&server.url).header("sec-fetch-site", "cross-site").header("sec-fetch-mode", mode);
        let mut response = request.call()?;
        ensure!(response.status() == answer, "{mode}");
        // A link from elsewhere leads to a page with a link, and reads nothing.
        let page = response.body_mut().read_to_string()?;
        ensure!(!page.contains("id=\"total\""), "{mode}: {page}");
    }
    ensure!(get(&format!("{}/etc/passwd", server.url), None)?.0 == 404, "an unknown path is not rejected");
    let posted = ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build())
        .post(&server.url)
        .send("event=x")?;
    ensure!(posted.status() == 405, "{posted:?}");
    let wrong = pipeline.expect(1, &["dashboard", "--host", "https://counts.example.com/"])?;
    ensure!(wrong.err.contains("write a host name"), "{}", wrong.err);
    // Stopping a server is not a failure, and neither an idle connection nor half a request delays it.
    let address = server.url.trim_start_matches("http://");
    let _idle = TcpStream::connect(address)?;
    let mut half = TcpStream::connect(address)?;
    half.write_all(b"GET / HT")?;
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    send_signal("INT", server.id())?;
    ensure!(server.wait()? == Some(0), "the exit code after SIGINT is not 0");
    ensure!(started.elapsed() < Duration::from_secs(8), "stopping took {:?}", started.elapsed());

    let open = DashboardServer::start(&pipeline, "0.0.0.0:0", &[])?;
    ensure!(open.banner.contains("no authentication and no encryption"), "{}", open.banner);
    let taken = pipeline.expect(1, &["dashboard", "--listen", open.url.trim_start_matches("http://")])?;
    ensure!(taken.err.contains("failed to listen on") && taken.err.contains("--listen"), "{}", taken.err);
    Ok(())
}

#[tokio::test]
async fn request_with_invalid_input_shows_the_error_on_the_page() -> Result<()> {
    let pipeline = pipeline()?;
    // Before the first apply, and after it.
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let (status, _, page) = get(&server.url, None)?;
    ensure!(status == 502 && page.contains("does not exist") && page.contains("provisioner apply"), "{status} {page}");
    pipeline.expect(0, &["apply", "--yes"])?;
    let (status, _, page) = get(&server.url, None)?;
    ensure!(status == 200 && page.contains("Nothing was counted in this period."), "{status} {page}");
    for (query, part) in [
        ("last=soon", "--last soon cannot be used"),
        ("from=2015-08-05&to=2015-08-04", "choose a start before the end"),
        ("to=2015-08-04", "has no start"),
        ("last=9y", "choose at most two years"),
        ("last=12mo&by=hour", "choose a coarser unit"),
    ] {
        let (status, _, page) = get(&format!("{}/?{query}", server.url), None)?;
        ensure!(status == 400 && page.contains(part), "{query}: {status} {page}");
    }
    let wrong = pipeline.expect(1, &["dashboard", "--out", "no/such/folder.html"])?;
    ensure!(wrong.err.contains("failed to write no/such/folder.html"), "{}", wrong.err);
    Ok(())
}

#[tokio::test]
async fn visitor_without_the_password_reads_nothing() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let file = pipeline.config().with_file_name("password");
    std::fs::write(&file, "counts:open sesame\n")?;
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
    let args = ["--password-file", "password"];
    mode(0o644)?;
    let refused = pipeline.expect(1, &[&["dashboard"], &args[..]].concat())?;
    ensure!(refused.err.contains("failed to read the password in password: others"), "{}", refused.err);
    let both = pipeline.expect(1, &[&["dashboard", "--token"], &args[..]].concat())?;
    ensure!(both.err.contains("cannot be used with"), "{}", both.err);
    mode(0o600)?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &args)?;
    for path in ["/", "/counts.csv", "/style.css", "/script.js"] {
        let url = format!("{}{path}", server.url);
        let (status, headers, _) = get(&url, None)?;
        ensure!(
            status == 401 && headers["www-authenticate"].to_str()?.starts_with("Basic realm="),
            "{url}: {headers:?}"
        );
        ensure!(headers.contains_key("content-security-policy"), "{headers:?}");
        // The right one, and `counts:sesame`.
        for (credentials, expected) in [("Y291bnRzOm9wZW4gc2VzYW1l", 200), ("Y291bnRzOnNlc2FtZQ==", 401)] {
            let config = ureq::config::Config::builder().http_status_as_error(false).build();
            let request = ureq::Agent::new_with_config(config).get(&url);
            let answer = request.header("authorization", format!("Basic {credentials}")).call()?;
            ensure!(answer.status() == expected, "{url}: {answer:?}");
        }
    }
    let open = DashboardServer::start(&pipeline, "0.0.0.0:0", &args)?;
    ensure!(open.banner.contains("may read the password and the counts"), "{}", open.banner);
    Ok(())
}
