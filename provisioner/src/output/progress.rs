//! The progress of an apply on stderr: a live line for each running step on a terminal, otherwise plain lines with
//! durations.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::timeout;

use super::{Output, error_text, plan_text};
use crate::counts::Progress;
use crate::reconcile::plan::Action;
use crate::reconcile::progress::{Event, Reporter};
use crate::reconcile::resource::Address;
use crate::text::printable;

/// The interval of a spinner.
const TICK: Duration = Duration::from_millis(100);
/// Without a terminal, shorter waits are not reported, and progress is reported at this interval.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// The time after which the progress of a reading is shown.
const LONG_READING: Duration = Duration::from_secs(1);

/// Returns the reporter for stderr: interactive on a terminal, otherwise plain.
pub(crate) fn for_stderr(output: &Output) -> Box<dyn Reporter + '_> {
    if std::io::stderr().is_terminal() {
        Box::new(Interactive { output, bars: MultiProgress::default(), running: Mutex::default() })
    } else {
        Box::new(Plain { output, waits: Mutex::default(), last_progress: Mutex::default() })
    }
}

/// Formats the last line of a step, for both reporters; `None` while the step is running.
fn ending(address: &Address, action: Action, event: &Event<'_>) -> Option<String> {
    let color = plan_text::style(action);
    let (symbol, address) = (action.symbol(), printable(&address.to_string()));
    match event {
        Event::Started | Event::Waiting { .. } | Event::Progress { .. } => None,
        Event::Done { took } => {
            Some(format!("{color}{symbol}{color:#} {address}: {} in {:.1} s", action.done(), took.as_secs_f64()))
        }
        Event::Failed { error } => Some(format!("{color}{symbol}{color:#} {address}: {}", error_text(error))),
        Event::Skipped { because: Some(because) } => Some(format!(
            "{color}{symbol}{color:#} {address}: skipped, because {} failed",
            printable(&because.to_string())
        )),
        Event::Skipped { because: None } => Some(format!("{color}{symbol}{color:#} {address}: not started")),
    }
}

/// A reporter that prints plain lines.
struct Plain<'a> {
    output: &'a Output,
    /// The condition last reported for each waiting step.
    waits: Mutex<HashMap<Address, String>>,
    /// The time of the last progress line.
    last_progress: Mutex<Option<Instant>>,
}

impl Reporter for Plain<'_> {
    fn event(&self, address: &Address, action: Action, event: &Event<'_>) {
        let line = match event {
            Event::Waiting { what, elapsed } if *elapsed >= LONG_WAIT => {
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                let previous = waits.insert(address.clone(), (*what).to_owned());
                if previous.as_deref() == Some(*what) {
                    return;
                }
                format!("  {}: waiting for {what}", printable(&address.to_string()))
            }
            // Limits progress to one line per interval.
            Event::Progress { done, total } => {
                let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_some_and(|last| last.elapsed() < LONG_WAIT) {
                    return;
                }
                *last = Some(Instant::now());
                format!("  {}: {} {done} of {total}", printable(&address.to_string()), action.doing())
            }
            other => match ending(address, action, other) {
                Some(line) => line,
                None => return,
            },
        };
        self.output.progress(&line);
    }
}

/// A reporter that updates the line of each running step in place.
struct Interactive<'a> {
    output: &'a Output,
    bars: MultiProgress,
    running: Mutex<HashMap<Address, ProgressBar>>,
}

impl Reporter for Interactive<'_> {
    fn event(&self, address: &Address, action: Action, event: &Event<'_>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = printable(&address.to_string());
        match event {
            Event::Started => {
                let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
                let bar =
                    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                let bar = self.bars.add(bar);
                bar.set_message(format!("{shown}: {}", action.doing()));
                bar.enable_steady_tick(TICK);
                running.insert(address.clone(), bar);
            }
            Event::Waiting { what, .. } => {
                if let Some(bar) = running.get(address) {
                    bar.set_message(format!("{shown}: waiting for {what}"));
                }
            }
            Event::Progress { done, total } => {
                if let Some(bar) = running.get(address) {
                    if bar.length().is_none() {
                        let style =
                            ProgressStyle::with_template("{spinner} {msg} {bar:30} {human_pos}/{human_len} {elapsed}");
                        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    }
                    bar.set_length(*total);
                    bar.set_position(*done);
                }
            }
            ended => {
                if let Some(bar) = running.remove(address) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                if let Some(line) = ending(address, action, ended) {
                    self.bars.suspend(|| self.output.progress(&line));
                }
            }
        }
    }
}

/// Awaits a reading, and shows its progress from [`LONG_READING`] on.
pub(crate) async fn show_while<T>(output: &Output, progress: &Progress, reading: impl Future<Output = T>) -> T {
    let mut reading = pin!(reading);
    if let Ok(result) = timeout(LONG_READING, &mut reading).await {
        return result;
    }
    let bar = Bar::for_stderr(output, "readings done:").overdue();
    loop {
        let (done, total) = progress.now();
        bar.set(done, Some(total));
        if let Ok(result) = timeout(TICK, &mut reading).await {
            return result;
        }
    }
}

/// The progress of one long operation on stderr: a bar on a terminal, an occasional line elsewhere.
pub(crate) struct Bar<'a> {
    output: &'a Output,
    what: &'static str,
    bar: Option<ProgressBar>,
    printed: Mutex<Instant>,
}

impl<'a> Bar<'a> {
    /// Creates a bar with the title `what`, such as `objects done:`.
    pub(crate) fn for_stderr(output: &'a Output, what: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} {elapsed}");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(what);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { output, what, bar, printed: Mutex::new(Instant::now()) }
    }

    /// Shows the first line at once, for an operation that already takes long.
    fn overdue(mut self) -> Self {
        let printed = Instant::now().checked_sub(LONG_WAIT);
        self.printed = Mutex::new(printed.unwrap_or_else(Instant::now));
        self
    }

    /// Shows the number of finished parts, and the total once it is known.
    pub(crate) fn set(&self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                let style = ProgressStyle::with_template("{spinner} {msg} {bar:30} {human_pos}/{human_len} {eta} left");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_length(total);
            }
            bar.set_position(done);
            return;
        }
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.elapsed() < LONG_WAIT {
            return;
        }
        *printed = Instant::now();
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        self.output.progress(&format!("  {} {done}{of}", self.what));
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
