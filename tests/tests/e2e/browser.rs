//! The dashboard in a browser: by mouse, by keyboard, on a phone and in dark mode.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};
use thirtyfour::prelude::*;

use crate::counts::count_a_month;
use crate::pipeline;
use crate::served::{Browser, DashboardServer};

/// Returns event names that break a page that does not escape them.
fn hostile_names() -> Vec<String> {
    let long = "x".repeat(1000);
    [
        "<script>document.title='owned'</script>",
        "<img src=x onerror=\"document.title='owned'\">",
        "'; document.title='owned'; //",
        "\"quotes\" & 'more'",
        "שלום עולם",
        &long,
    ]
    .map(str::to_owned)
    .into()
}

async fn upload_names(pipeline: &Pipeline<'_>, key: &str, names: &[String], expected: &mut Counts) -> Result<()> {
    let now = Utc::now().to_rfc3339();
    let lines: String = names
        .iter()
        .map(|name| json!({ "type": "track", "event": name, "timestamp": now }).to_string() + "\n")
        .collect();
    let bytes = gzip(lines.as_bytes());
    recount::add(expected, &bytes)?;
    pipeline.upload(&format!("segment-logs/x/1/{key}.gz"), &bytes).await?;
    pipeline.wait_for_counts(expected).await
}

/// Returns the texts of a table's cells, row by row.
async fn rows(browser: &Browser, selector: &str) -> Result<Vec<Vec<String>>> {
    let script = format!(
        "return [...document.querySelectorAll('{selector} tr')].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    );
    Ok(serde_json::from_value(browser.evaluate(&script).await?)?)
}

/// Waits until the address contains `part` and the page has finished loading.
async fn wait_until_shown(browser: &Browser, part: &str) -> Result<()> {
    browser
        .wait_until(&format!(
            "return location.search.includes('{part}') && !!document.getElementById('data') && !document.querySelector('[aria-busy]')"
        ))
        .await
}

#[tokio::test]
async fn chart_table_and_download_equal_the_recount() -> Result<()> {
    let pipeline = pipeline()?;
    let expected = count_a_month(&pipeline).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(format!("{}/?from=2015-07-05&to=2015-08-04&by=day&event=Event+003", server.url)).await?;

    // One event is added by a click on its name, another by typing.
    browser.page.find(By::LinkText("Event 001")).await?.click().await?;
    browser.wait_until("return document.querySelectorAll('.legend li').length === 2").await?;
    browser.page.find(By::Id("event")).await?.send_keys("Event 050" + Key::Enter).await?;
    browser.wait_until("return document.querySelectorAll('.legend li').length === 3").await?;

    browser.page.find(By::Css("#numbers summary")).await?.click().await?;
    let mut by_day: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for ((event, hour), count) in &expected {
        let day = DateTime::parse_from_rfc3339(hour)?.format("%Y-%m-%d %a").to_string();
        *by_day.entry((event, day)).or_default() += count;
    }
    let shown = rows(&browser, ".numbers tbody").await?;
    ensure!(shown.len() == 30, "{} days", shown.len());
    for row in &shown {
        for (event, count) in ["Event 003", "Event 001", "Event 050"].iter().zip(&row[1..]) {
            let wanted = by_day.get(&(event, row[0].clone())).copied().unwrap_or(0);
            ensure!(count.replace(',', "") == wanted.to_string(), "{event} on {}: {count} is not {wanted}", row[0]);
        }
    }
    let total: u64 = expected.values().sum();
    ensure!(browser.text("#total").await?.replace(',', "") == total.to_string(), "{}", browser.text("#total").await?);

    // A tooltip shows the values under the pointer.
    let plot = browser.page.find(By::Css(".plot.wide svg")).await?;
    browser.page.action_chain().move_to_element_center(&plot).perform().await?;
    browser.wait_until("return !document.querySelector('.tip').hidden").await?;
    let tip: BTreeSet<String> = browser.text(".tip").await?.lines().map(str::to_owned).collect();
    ensure!(shown.iter().any(|row| tip.contains(&row[0])), "{tip:?}");

    // The link downloads the same numbers as CSV.
    browser.page.find(By::Id("csv")).await?.click().await?;
    let file = browser.downloads.path().join("counts-UTC.csv");
    let started = Instant::now();
    while !file.exists() {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no file was downloaded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let csv = std::fs::read_to_string(&file)?;
    ensure!(csv.lines().next() == Some("start,Event 003,Event 001,Event 050,extent"), "{csv}");
    for (line, row) in csv.lines().skip(1).zip(&shown) {
        let counts: Vec<&str> = line.split(',').skip(1).collect();
        let same = row[1..].iter().zip(&counts).all(|(shown, count)| shown.replace(',', "") == **count);
        ensure!(same && line.starts_with(&row[0][..10]), "{line} is not {row:?}");
    }

    // An event is removed from the chart; the address reflects the view, and going back restores it.
    browser.page.find(By::Css("a[aria-label='Take Event 001 off the chart']")).await?.click().await?;
    browser.wait_until("return document.querySelectorAll('.legend li').length === 2").await?;
    let url = browser.page.current_url().await?.to_string();
    ensure!(url.contains("event=Event+050") && !url.contains("Event+001"), "{url}");
    browser.page.back().await?;
    browser.wait_until("return document.querySelectorAll('.legend li').length === 3").await?;
    Ok(())
}

#[tokio::test]
async fn controls_change_period_unit_chart_and_time_zone() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for sample in samples::generate(5, Utc::now(), 2, 200) {
        recount::add(&mut expected, &sample.bytes)?;
        pipeline.upload(&sample.key, &sample.bytes).await?;
    }
    pipeline.wait_for_counts(&expected).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(&server.url).await?;
    let heading = || browser.text("#chart-title");
    ensure!(heading().await? == "Most frequent events by day", "{}", heading().await?);
    let choose = |id: &'static str, value: &'static str| {
        let page = &browser.page;
        async move { page.find(By::Css(format!("#{id} option[value='{value}']"))).await?.click().await }
    };
    choose("last", "24h").await?;
    wait_until_shown(&browser, "last=24h").await?;
    ensure!(heading().await? == "Most frequent events by hour", "{}", heading().await?);
    let total: u64 = expected.values().sum();
    ensure!(browser.text("#total").await?.replace(',', "") == total.to_string(), "{}", browser.text("#total").await?);
    choose("by", "day").await?;
    wait_until_shown(&browser, "by=day").await?;
    choose("chart", "bars").await?;
    wait_until_shown(&browser, "chart=bars").await?;
    browser.wait_until("return !!document.querySelector('.plot rect')").await?;
    browser.page.find(By::Id("compare")).await?.click().await?;
    wait_until_shown(&browser, "compare=on").await?;
    ensure!(browser.text("#before").await? == "0", "{}", browser.text("#before").await?);

    // A link contains the whole view, so another browser shows the same.
    let (url, entries) = (browser.page.current_url().await?, browser.text(".legend").await?);
    ensure!(!url.as_str().contains("tz=") && !url.as_str().contains("from="), "{url}");
    browser.page.goto("about:blank").await?;
    browser.page.goto(url.as_str()).await?;
    ensure!(browser.text(".legend").await? == entries, "{}", browser.text(".legend").await?);

    // Dates and the time zone are in a collapsed section.
    browser.page.find(By::Css(".more summary")).await?.click().await?;
    let today = Utc::now().format("%m%d%Y").to_string();
    browser.page.find(By::Id("from")).await?.send_keys(today + Key::Enter).await?;
    wait_until_shown(&browser, "from=").await?;
    browser.page.find(By::Id("tz")).await?.send_keys("Asia/Kolkata" + Key::Enter).await?;
    browser
        .wait_until("return document.querySelector('footer')?.textContent.includes('Asia/Kolkata') === true")
        .await?;
    ensure!(browser.evaluate("return document.getElementById('last').value").await? == "", "two periods at once");

    // An invalid time zone is reported, and the controls keep working.
    browser.page.goto(format!("{}/?tz=Mars%2FOlympus", server.url)).await?;
    ensure!(browser.text(".problem").await?.contains("--tz Mars/Olympus cannot be used"), "zone is not reported");
    choose("last", "30d").await?;
    wait_until_shown(&browser, "last=30d").await
}

#[tokio::test]
async fn page_without_mouse_is_fully_usable() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let names: Vec<String> = (0..8).map(|n| format!("Event {n}")).collect();
    upload_names(&pipeline, "a", &names, &mut Counts::new()).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(&server.url).await?;
    let press = |keys: &'static str| {
        let page = &browser.page;
        async move { page.action_chain().send_keys(keys).perform().await }
    };
    let focused = || async {
        let script =
            "const e = document.activeElement; return [e.id || e.tagName + '.' + e.className, e.textContent.trim(),
                      getComputedStyle(e).outlineStyle]";
        serde_json::from_value::<[String; 3]>(browser.evaluate(script).await?).context("the focused element")
    };
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";

    // Every focus stop is visible and has a name, and every control is reachable.
    let mut stops = Vec::new();
    for _ in 0..40 {
        press(TAB).await?;
        let [id, text, outline] = focused().await?;
        if id.starts_with("BODY") {
            break;
        }
        ensure!(outline != "none", "the focus on {id} {text} is not visible");
        stops.push((id, text));
    }
    let ids: Vec<&str> = stops.iter().map(|(id, _)| id.as_str()).collect();
    ensure!(stops.first().is_some_and(|(_, text)| text == "Skip to the numbers"), "{stops:?}");
    for id in ["last", "by", "chart", "event", "compare", "refresh", "csv", "event-1", "event-8"] {
        ensure!(ids.contains(&id), "{id} cannot be reached: {ids:?}");
    }
    let unnamed = browser
        .evaluate(
            "return [...document.querySelectorAll('input:not([type=hidden]), select, button, a')]
               .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)",
        )
        .await?;
    ensure!(unnamed == json!([]), "{unnamed}");

    // The skip link passes the controls; then an event is chosen for the chart.
    browser.page.goto(&server.url).await?;
    press(TAB).await?;
    press(ENTER).await?;
    ensure!(focused().await?[0] == "data", "{:?}", focused().await?);
    for _ in 0..20 {
        press(TAB).await?;
        if focused().await?[0] == "event-7" {
            break;
        }
    }
    let chosen = focused().await?[1].clone();
    press(ENTER).await?;
    browser
        .wait_until("return location.search.includes('event=') && document.querySelectorAll('.legend li').length === 1")
        .await?;
    ensure!(browser.text(".legend .name").await? == chosen, "{chosen} was chosen");
    let announced = browser.evaluate("return document.getElementById('said').textContent").await?;
    ensure!(announced == "Chosen events by day, 8 events in all", "{announced} is announced");
    ensure!(
        browser.evaluate("return document.querySelectorAll('[aria-current=true]').length").await? == 1,
        "the chosen event is not marked"
    );
    Ok(())
}

#[tokio::test]
async fn page_with_hostile_names_shows_text_and_fits_every_screen() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let names = hostile_names();
    upload_names(&pipeline, "a", &names, &mut Counts::new()).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(format!("{}/?last=24h&compare=on", server.url)).await?;
    let title = browser.page.title().await?;
    let listed: BTreeSet<String> = rows(&browser, ".top tbody").await?.into_iter().map(|row| row[0].clone()).collect();
    ensure!(listed == names.iter().cloned().collect(), "{listed:?}");
    // Each name is added to the chart and removed from it.
    for n in 1..=names.len() {
        browser.page.find(By::Id(format!("event-{n}"))).await?.click().await?;
        wait_until_shown(&browser, "event=").await?;
        let name = browser.evaluate("return document.querySelector('.legend .name').textContent").await?;
        ensure!(names.iter().any(|known| name == known.as_str()), "{name}");
        browser.page.find(By::Css(".legend .remove")).await?.click().await?;
        let removed = "return !location.search.includes('event=') && !document.querySelector('[aria-busy]')";
        browser.wait_until(removed).await?;
    }
    ensure!(browser.page.title().await? == title && title.starts_with(&pipeline.name), "the page has another title");
    // Nothing is loaded from another origin, and the policy blocks neither style nor script.
    let elsewhere =
        "return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith(location.origin)).length";
    ensure!(browser.evaluate(elsewhere).await? == 0, "a resource was loaded from another origin");
    let active =
        "return document.documentElement.className === 'handy' && getComputedStyle(document.body).margin !== '8px'";
    ensure!(browser.evaluate(active).await? == true, "style or script is blocked");

    // On a phone and in dark mode, the page is not wider than the screen.
    for (width, scheme) in [(1280, "light"), (390, "light"), (320, "dark")] {
        let phone = width < 700;
        browser
            .devtools(
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": width, "height": 800, "deviceScaleFactor": 2, "mobile": phone }),
            )
            .await?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", features).await?;
        browser.page.goto(format!("{}/?last=24h&compare=on", server.url)).await?;
        let wide = browser.evaluate("return document.documentElement.scrollWidth - window.innerWidth").await?;
        ensure!(wide.as_i64().is_some_and(|over| over <= 0), "{wide} pixels too wide at {width}");
        let plot = if phone { ".plot.narrow" } else { ".plot.wide" };
        let seen = format!("return document.querySelector('{plot}').getBoundingClientRect().height > 100");
        ensure!(browser.evaluate(&seen).await? == true, "no chart at {width}");
        // WCAG 2.2, 1.4.3: contrast of text.
        let contrast = browser.evaluate(CONTRAST).await?;
        ensure!(contrast.as_f64().is_some_and(|least| least >= 4.5), "the contrast is {contrast} in {scheme}");
    }
    Ok(())
}

/// A script that returns the lowest contrast between a text's colour and its background.
const CONTRAST: &str = r"
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = document.querySelectorAll('h1, h2, p, dt, dd, label, summary, th, td, a, .number, .change, .name');
  return Math.min(...[...texts].filter((e) => e.textContent.trim() && e.getClientRects().length).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));";

#[tokio::test]
async fn auto_refresh_updates_counts_in_place() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    upload_names(&pipeline, "a", &["first".to_owned()], &mut expected).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(&server.url).await?;
    browser.page.find(By::Id("refresh")).await?.click().await?;
    wait_until_shown(&browser, "refresh=on").await?;
    browser.page.find(By::Css("#numbers summary")).await?.click().await?;
    browser.page.find(By::Id("event-1")).await?.focus().await?;
    browser.evaluate("window.same = true").await?;
    upload_names(&pipeline, "b", &["second".to_owned(), "second".to_owned()], &mut expected).await?;
    browser.wait_until("return document.getElementById('total').textContent === '3'").await?;
    let kept = "return [window.same, document.getElementById('numbers').open, document.activeElement.dataset.event]";
    ensure!(browser.evaluate(kept).await? == json!([true, true, "first"]), "{}", browser.evaluate(kept).await?);
    Ok(())
}

#[tokio::test]
async fn report_opened_from_a_file_works() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    upload_names(&pipeline, "a", &hostile_names(), &mut expected).await?;
    pipeline.expect(0, &["dashboard", "--out", "report.html", "--last", "24h", "--compare"])?;
    let file = pipeline.config().with_file_name("report.html");
    let browser = Browser::start().await?;
    browser.page.goto(format!("file://{}", file.display())).await?;
    ensure!(browser.text("#total").await? == "6", "{}", browser.text("#total").await?);
    let styled = browser.evaluate("return getComputedStyle(document.body).maxWidth !== 'none'").await?;
    ensure!(styled == Value::Bool(true), "the style is blocked");
    let plot = browser.page.find(By::Css(".plot.wide svg")).await?;
    browser.page.action_chain().move_to_element_center(&plot).perform().await?;
    browser.wait_until("return !document.querySelector('.tip').hidden").await?;
    let csv = browser.page.find(By::Id("csv")).await?.attr("href").await?.context("a link")?;
    ensure!(csv.starts_with("data:text/csv"), "{csv}");
    Ok(())
}

#[tokio::test]
async fn toolbar_legend_and_long_names_fit_the_screen() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut names: Vec<String> = (0..40).map(|n| format!("Event {n:02}")).collect();
    let long = format!("Subscription {}", "renewal reminder ".repeat(20));
    names.push(long.clone());
    upload_names(&pipeline, "a", &names, &mut Counts::new()).await?;
    let server = DashboardServer::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    let resize = |width: u32, height: u32, mobile: bool| {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": mobile });
        let browser = &browser;
        async move { browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await }
    };
    resize(1280, 900, false).await?;
    let event = percent_encoding::utf8_percent_encode(long.trim(), percent_encoding::NON_ALPHANUMERIC);
    browser.page.goto(format!("{}/?last=24h&compare=on&event={event}", server.url)).await?;
    // All controls are in one row: their lower edges are within one control's height.
    let edges = "const edges = [...document.querySelectorAll('#choose > p, #choose > .ticks')].map((e) => e.getBoundingClientRect().bottom); \
                 return Math.max(...edges) - Math.min(...edges)";
    let spread = browser.evaluate(edges).await?.as_f64().context("a number")?;
    ensure!(spread < 20.0, "the toolbar has more than one row: {spread}");

    // A shortened name is whole while it has the focus.
    let height = "return document.querySelector('.legend .name').getBoundingClientRect().height";
    let short = browser.evaluate(height).await?.as_f64().context("a number")?;
    browser.evaluate("document.querySelector('.legend .name').focus(); return 1").await?;
    let whole = browser.evaluate(height).await?.as_f64().context("a number")?;
    ensure!(whole > 1.5 * short, "{whole} is not higher than {short}");

    // Typing finds an event beyond the rows that are shown, and the field keeps the text and the focus.
    browser.page.find(By::Id("find")).await?.send_keys("event 3").await?;
    browser.wait_until("return document.querySelectorAll('[data-event]').length === 10").await?;
    let state = "return document.activeElement.id + ':' + document.getElementById('find').value";
    ensure!(browser.evaluate(state).await? == json!("find:event 3"), "{}", browser.evaluate(state).await?);

    // On a phone, a change in the legend is on one line.
    resize(390, 844, true).await?;
    browser.page.goto(format!("{}/?last=24h&compare=on", server.url)).await?;
    let lines = "return [...document.querySelectorAll('.legend .change')].map((e) => e.getClientRects().length)";
    let lines: Vec<u64> = serde_json::from_value(browser.evaluate(lines).await?)?;
    ensure!(!lines.is_empty() && lines.iter().all(|lines| *lines == 1), "{lines:?}");
    let wider = browser.evaluate("return document.documentElement.scrollWidth - window.innerWidth").await?;
    ensure!(wider.as_i64().is_some_and(|wider| wider <= 0), "{wider} px wider than the screen");
    Ok(())
}
