//! The dashboard as people use it: in a browser, by mouse, by keyboard, on a phone and in the dark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tests::pipeline::{COUNTED, Pipeline};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};
use tests::served::{Browser, Served};
use thirtyfour::prelude::*;

use crate::answers::counted;
use crate::pipeline;

/// Names that are no good to a page that takes them for more than text.
fn hostile() -> Vec<String> {
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

async fn count_names(pipeline: &Pipeline<'_>, key: &str, names: &[String], expected: &mut Counts) -> Result<()> {
    let now = Utc::now().to_rfc3339();
    let lines: String = names
        .iter()
        .map(|name| json!({ "type": "track", "event": name, "timestamp": now }).to_string() + "\n")
        .collect();
    let bytes = gzip(lines.as_bytes());
    recount::add(expected, &bytes)?;
    pipeline.upload(&format!("segment-logs/x/1/{key}.gz"), &bytes).await?;
    pipeline.counted(expected).await
}

/// The rows of a table, as they are shown.
async fn rows(browser: &Browser, selector: &str) -> Result<Vec<Vec<String>>> {
    let script = format!(
        "return [...document.querySelectorAll('{selector} tr')].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    );
    Ok(serde_json::from_value(browser.value(&script).await?)?)
}

/// Waits until the page shows what its address says, of which this is a part.
async fn shown(browser: &Browser, part: &str) -> Result<()> {
    browser
        .until(&format!(
            "return location.search.includes('{part}') && !!document.getElementById('data') && !document.querySelector('[aria-busy]')"
        ))
        .await
}

#[tokio::test]
async fn numbers_and_download_are_as_recounted() -> Result<()> {
    let pipeline = pipeline()?;
    let expected = counted(&pipeline).await?;
    let served = Served::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(format!("{}/?from=2015-07-05&to=2015-08-04&by=day&event=Event+003", served.url)).await?;

    // An event more, by a click on its name, and one by typing.
    browser.page.find(By::LinkText("Event 001")).await?.click().await?;
    browser.until("return document.querySelectorAll('.legend li').length === 2").await?;
    browser.page.find(By::Id("event")).await?.send_keys("Event 050" + Key::Enter).await?;
    browser.until("return document.querySelectorAll('.legend li').length === 3").await?;

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

    // What is under the pointer is said beside it.
    let plot = browser.page.find(By::Css(".plot.wide svg")).await?;
    browser.page.action_chain().move_to_element_center(&plot).perform().await?;
    browser.until("return !document.querySelector('.tip').hidden").await?;
    let tip: BTreeSet<String> = browser.text(".tip").await?.lines().map(str::to_owned).collect();
    ensure!(shown.iter().any(|row| tip.contains(&row[0])), "{tip:?}");

    // The link to the same as CSV.
    browser.page.find(By::Id("csv")).await?.click().await?;
    let file = browser.downloads.path().join("counts.csv");
    let started = Instant::now();
    while !file.exists() {
        ensure!(started.elapsed() < COUNTED, "nothing was downloaded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let csv = std::fs::read_to_string(&file)?;
    ensure!(csv.lines().next() == Some("start,Event 003,Event 001,Event 050"), "{csv}");
    for (line, row) in csv.lines().skip(1).zip(&shown) {
        let counts: Vec<&str> = line.split(',').skip(1).collect();
        let same = row[1..].iter().zip(&counts).all(|(shown, count)| shown.replace(',', "") == **count);
        ensure!(same && line.starts_with(&row[0][..10]), "{line} is not {row:?}");
    }

    // Off the chart again; the address says what is shown, and so does going back.
    browser.page.find(By::Css("a[aria-label='Take Event 001 off the chart']")).await?.click().await?;
    browser.until("return document.querySelectorAll('.legend li').length === 2").await?;
    let url = browser.page.current_url().await?.to_string();
    ensure!(url.contains("event=Event+050") && !url.contains("Event+001"), "{url}");
    browser.page.back().await?;
    browser.until("return document.querySelectorAll('.legend li').length === 3").await?;
    Ok(())
}

#[tokio::test]
async fn periods_units_and_charts_are_chosen() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for sample in samples::make(5, Utc::now(), 2, 200) {
        recount::add(&mut expected, &sample.bytes)?;
        pipeline.upload(&sample.key, &sample.bytes).await?;
    }
    pipeline.counted(&expected).await?;
    let served = Served::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(&served.url).await?;
    let heading = || browser.text("#chart-title");
    ensure!(heading().await? == "Most frequent events by day", "{}", heading().await?);
    let choose = |id: &'static str, value: &'static str| {
        let page = &browser.page;
        async move { page.find(By::Css(format!("#{id} option[value='{value}']"))).await?.click().await }
    };
    choose("last", "24h").await?;
    shown(&browser, "last=24h").await?;
    ensure!(heading().await? == "Most frequent events by hour", "{}", heading().await?);
    let total: u64 = expected.values().sum();
    ensure!(browser.text("#total").await?.replace(',', "") == total.to_string(), "{}", browser.text("#total").await?);
    choose("by", "day").await?;
    shown(&browser, "by=day").await?;
    choose("chart", "bars").await?;
    shown(&browser, "chart=bars").await?;
    browser.until("return !!document.querySelector('.plot rect')").await?;
    browser.page.find(By::Id("compare")).await?.click().await?;
    shown(&browser, "compare=on").await?;
    ensure!(browser.text("#before").await? == "0", "{}", browser.text("#before").await?);

    // A link is the whole view: another browser, or tomorrow, shows the same.
    let (url, entries) = (browser.page.current_url().await?, browser.text(".legend").await?);
    ensure!(!url.as_str().contains("tz=") && !url.as_str().contains("from="), "{url}");
    browser.page.goto("about:blank").await?;
    browser.page.goto(url.as_str()).await?;
    ensure!(browser.text(".legend").await? == entries, "{}", browser.text(".legend").await?);

    // Dates and a zone, which are folded away.
    browser.page.find(By::Css(".more summary")).await?.click().await?;
    let today = Utc::now().format("%m%d%Y").to_string();
    browser.page.find(By::Id("from")).await?.send_keys(today + Key::Enter).await?;
    shown(&browser, "from=").await?;
    browser.page.find(By::Id("tz")).await?.send_keys("Asia/Kolkata" + Key::Enter).await?;
    browser.until("return document.querySelector('footer')?.textContent.includes('Asia/Kolkata') === true").await?;
    ensure!(browser.value("return document.getElementById('last').value").await? == "", "two periods at once");

    // What cannot be is said, and the way back is open.
    browser.page.goto(format!("{}/?tz=Mars%2FOlympus", served.url)).await?;
    ensure!(browser.text(".problem").await?.contains("--tz Mars/Olympus cannot be used"), "no word of the zone");
    choose("last", "30d").await?;
    shown(&browser, "last=30d").await
}

#[tokio::test]
async fn everything_can_be_done_by_keyboard() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let names: Vec<String> = (0..8).map(|n| format!("Event {n}")).collect();
    count_names(&pipeline, "a", &names, &mut Counts::new()).await?;
    let served = Served::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(&served.url).await?;
    let press = |keys: &'static str| {
        let page = &browser.page;
        async move { page.action_chain().send_keys(keys).perform().await }
    };
    let focused = || async {
        let script =
            "const e = document.activeElement; return [e.id || e.tagName + '.' + e.className, e.textContent.trim(),
                      getComputedStyle(e).outlineStyle]";
        serde_json::from_value::<[String; 3]>(browser.value(script).await?).context("what is focused")
    };
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";

    // Every stop is shown, and has a name; nothing that can be done is left out.
    let mut stops = Vec::new();
    for _ in 0..40 {
        press(TAB).await?;
        let [id, text, outline] = focused().await?;
        if id.starts_with("BODY") {
            break;
        }
        ensure!(outline != "none", "nothing shows that {id} {text} is focused");
        stops.push((id, text));
    }
    let ids: Vec<&str> = stops.iter().map(|(id, _)| id.as_str()).collect();
    ensure!(stops.first().is_some_and(|(_, text)| text == "Skip to the numbers"), "{stops:?}");
    for id in ["last", "by", "chart", "event", "compare", "refresh", "csv", "event-1", "event-8"] {
        ensure!(ids.contains(&id), "{id} cannot be reached: {ids:?}");
    }
    let unnamed = browser
        .value(
            "return [...document.querySelectorAll('input:not([type=hidden]), select, button, a')]
               .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)",
        )
        .await?;
    ensure!(unnamed == json!([]), "{unnamed}");

    // Past the controls at once, to an event, and onto the chart.
    browser.page.goto(&served.url).await?;
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
        .until("return location.search.includes('event=') && document.querySelectorAll('.legend li').length === 1")
        .await?;
    ensure!(browser.text(".legend .name").await? == chosen, "{chosen} was chosen");
    let said = browser.value("return document.getElementById('said').textContent").await?;
    ensure!(said == "Chosen events by day, 8 events in all", "{said} is said");
    ensure!(
        browser.value("return document.querySelectorAll('[aria-current=true]').length").await? == 1,
        "none is marked"
    );
    Ok(())
}

#[tokio::test]
async fn hostile_names_are_text_and_nothing_spills() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let names = hostile();
    count_names(&pipeline, "a", &names, &mut Counts::new()).await?;
    let served = Served::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(format!("{}/?last=24h&compare=on", served.url)).await?;
    let title = browser.page.title().await?;
    let listed: BTreeSet<String> = rows(&browser, ".top tbody").await?.into_iter().map(|row| row[0].clone()).collect();
    ensure!(listed == names.iter().cloned().collect(), "{listed:?}");
    // Each one onto the chart, and off it.
    for n in 1..=names.len() {
        browser.page.find(By::Id(format!("event-{n}"))).await?.click().await?;
        shown(&browser, "event=").await?;
        let name = browser.value("return document.querySelector('.legend .name').textContent").await?;
        ensure!(names.iter().any(|known| name == known.as_str()), "{name}");
        browser.page.find(By::Css(".legend .remove")).await?.click().await?;
        browser.until("return !location.search.includes('event=') && !document.querySelector('[aria-busy]')").await?;
    }
    ensure!(browser.page.title().await? == title && title.starts_with(&pipeline.name), "the page has another title");
    // Nothing came from anywhere else, and nothing was kept from coming: style and script are at work.
    let elsewhere =
        "return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith(location.origin)).length";
    ensure!(browser.value(elsewhere).await? == 0, "something came from elsewhere");
    let at_work =
        "return document.documentElement.className === 'handy' && getComputedStyle(document.body).margin !== '8px'";
    ensure!(browser.value(at_work).await? == true, "style or script is not at work");

    // On a phone, and in the dark, nothing is wider than the screen.
    for (width, scheme) in [(1280, "light"), (390, "light"), (320, "dark")] {
        let phone = width < 700;
        browser
            .tool(
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": width, "height": 800, "deviceScaleFactor": 2, "mobile": phone }),
            )
            .await?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.tool("Emulation.setEmulatedMedia", features).await?;
        browser.page.goto(format!("{}/?last=24h&compare=on", served.url)).await?;
        let wide = browser.value("return document.documentElement.scrollWidth - window.innerWidth").await?;
        ensure!(wide.as_i64().is_some_and(|over| over <= 0), "{wide} pixels too wide at {width}");
        let plot = if phone { ".plot.narrow" } else { ".plot.wide" };
        let seen = format!("return document.querySelector('{plot}').getBoundingClientRect().height > 100");
        ensure!(browser.value(&seen).await? == true, "no chart at {width}");
        // WCAG 2.2, 1.4.3: the contrast of text.
        let contrast = browser.value(CONTRAST).await?;
        ensure!(contrast.as_f64().is_some_and(|least| least >= 4.5), "the contrast is {contrast} in {scheme}");
    }
    Ok(())
}

/// The least contrast between the colours of texts and of the page behind them.
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
async fn numbers_come_anew_in_place() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    count_names(&pipeline, "a", &["first".to_owned()], &mut expected).await?;
    let served = Served::start(&pipeline, "127.0.0.1:0", &[])?;
    let browser = Browser::start().await?;
    browser.page.goto(&served.url).await?;
    browser.page.find(By::Id("refresh")).await?.click().await?;
    shown(&browser, "refresh=on").await?;
    browser.page.find(By::Css("#numbers summary")).await?.click().await?;
    browser.page.find(By::Id("event-1")).await?.focus().await?;
    browser.value("window.same = true").await?;
    count_names(&pipeline, "b", &["second".to_owned(), "second".to_owned()], &mut expected).await?;
    browser.until("return document.getElementById('total').textContent === '3'").await?;
    let kept = "return [window.same, document.getElementById('numbers').open, document.activeElement.dataset.event]";
    ensure!(browser.value(kept).await? == json!([true, true, "first"]), "{}", browser.value(kept).await?);
    Ok(())
}

#[tokio::test]
async fn the_report_is_one_file_that_works() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    count_names(&pipeline, "a", &hostile(), &mut expected).await?;
    pipeline.expect(0, &["dashboard", "--out", "report.html", "--last", "24h", "--compare"])?;
    let file = pipeline.config().with_file_name("report.html");
    let browser = Browser::start().await?;
    browser.page.goto(format!("file://{}", file.display())).await?;
    ensure!(browser.text("#total").await? == "6", "{}", browser.text("#total").await?);
    let styled = browser.value("return getComputedStyle(document.body).maxWidth !== 'none'").await?;
    ensure!(styled == Value::Bool(true), "the style is kept from working");
    let plot = browser.page.find(By::Css(".plot.wide svg")).await?;
    browser.page.action_chain().move_to_element_center(&plot).perform().await?;
    browser.until("return !document.querySelector('.tip').hidden").await?;
    let csv = browser.page.find(By::Id("csv")).await?.attr("href").await?.context("a link")?;
    ensure!(csv.starts_with("data:text/csv"), "{csv}");
    Ok(())
}
