//! Progress of an apply, on stderr: a line a resource that lives while it is worked on where somebody watches, plain
//! lines with durations elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{human, printable};
use crate::event::{Event, Reporter};
use crate::kind::Address;
use crate::plan::Action;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// Where nobody watches, a wait is told of only from here on.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// The reporter that fits what stderr is.
#[must_use]
pub fn for_stderr() -> Box<dyn Reporter> {
    if std::io::stderr().is_terminal() { Box::new(Live::default()) } else { Box::new(Plain::default()) }
}

/// The last line on a step, for both reporters; none for what goes on.
fn ending(address: &Address, action: Action, event: &Event<'_>) -> Option<String> {
    let color = human::style(action);
    let (symbol, address) = (action.symbol(), printable(&address.to_string()));
    match event {
        Event::Started | Event::Waiting { .. } | Event::Progress { .. } => None,
        Event::Done { took } => {
            Some(format!("{color}{symbol}{color:#} {address}: {} in {:.1} s", action.done(), took.as_secs_f64()))
        }
        Event::Failed { error } => Some(format!("{color}{symbol}{color:#} {address}: {}", human::error(error))),
        Event::Skipped { because: Some(because) } => Some(format!(
            "{color}{symbol}{color:#} {address}: skipped, because {} failed",
            printable(&because.to_string())
        )),
        Event::Skipped { because: None } => Some(format!("{color}{symbol}{color:#} {address}: not begun")),
    }
}

/// Plain lines.
#[derive(Default)]
struct Plain {
    /// What each step was last said to wait for.
    waits: Mutex<HashMap<Address, String>>,
    /// When it last told of progress.
    told: Mutex<Option<Instant>>,
}

impl Reporter for Plain {
    fn event(&self, address: &Address, action: Action, event: &Event<'_>) {
        let line = match event {
            Event::Waiting { what, elapsed } if *elapsed >= LONG_WAIT => {
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                let said = waits.insert(address.clone(), (*what).to_owned());
                if said.as_deref() == Some(*what) {
                    return;
                }
                format!("  {}: waiting for {what}", printable(&address.to_string()))
            }
            // Often enough to see that it goes on, and no more.
            Event::Progress { done, total } => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_some_and(|told| told.elapsed() < LONG_WAIT) {
                    return;
                }
                *told = Some(Instant::now());
                format!("  {}: {} {done} of {total}", printable(&address.to_string()), action.doing())
            }
            other => match ending(address, action, other) {
                Some(line) => line,
                None => return,
            },
        };
        let _ = writeln!(anstream::stderr(), "{line}");
    }
}

/// Lines that live.
#[derive(Default)]
struct Live {
    bars: MultiProgress,
    running: Mutex<HashMap<Address, ProgressBar>>,
}

impl Reporter for Live {
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
                    self.bars.suspend(|| {
                        let _ = writeln!(anstream::stderr(), "{line}");
                    });
                }
            }
        }
    }
}

/// Progress of one long piece of work, on stderr: a bar with the time that is left where somebody watches, a line now and
/// then elsewhere.
pub struct Bar {
    what: &'static str,
    bar: Option<ProgressBar>,
    plain: Mutex<(Option<u64>, Instant)>,
}

impl Bar {
    /// For work that is called `what`: `counted`.
    #[must_use]
    pub fn for_stderr(what: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} {elapsed}");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(what);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { what, bar, plain: Mutex::new((None, Instant::now())) }
    }

    /// How much there is to do, once that is known.
    pub fn total(&self, total: u64) {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(total);
        if let Some(bar) = &self.bar {
            let style = ProgressStyle::with_template("{spinner} {msg} {bar:30} {human_pos}/{human_len} {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_length(total);
        }
    }

    /// How much of it is done.
    pub fn done(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if plain.1.elapsed() < LONG_WAIT {
            return;
        }
        plain.1 = Instant::now();
        let of = plain.0.map_or_else(String::new, |total| format!(" of {total}"));
        let _ = writeln!(anstream::stderr(), "  {} {done}{of}", self.what);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
