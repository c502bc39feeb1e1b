//! What the commands that work on a pipeline have found, for people.

use super::printable;
use crate::operate::backfill::{Options, Tally};
use crate::operate::replay::{Failure, State};
use crate::operate::status::{Counted, Deployed, Line, Status};
use crate::operate::verify::Verified;
use crate::report::counts::grouped;

fn number(n: u64) -> String {
    grouped(i64::try_from(n).unwrap_or(i64::MAX))
}

/// `1 object`, `2 objects`.
fn of(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// What a backfill has done, or would do.
#[must_use]
pub fn backfill(tally: &Tally, options: &Options) -> String {
    let mut out = format!("{} under {}\n", of(tally.listed, "object"), printable(&options.prefix));
    let mut line = |n: u64, what: &str| {
        if n > 0 {
            out.push_str(&format!("  {:>11}  {what}\n", number(n)));
        }
    };
    line(tally.left_out, "left out: of another time, or not what the notification names");
    line(tally.counted_before, "counted before");
    if options.dry_run {
        line(tally.due, &format!("not counted, {}: would be sent", bytes(tally.bytes)));
    } else {
        line(tally.counted, "counted now");
        let open = tally.sent.saturating_sub(tally.counted);
        line(open, "sent, and not counted yet");
        line(tally.due.saturating_sub(tally.sent), "not counted, and not sent");
    }
    for key in &tally.examples {
        out.push_str(&format!("               {}\n", printable(key)));
    }
    if tally.due == 0 {
        out.push_str("Everything is counted.\n");
    }
    out
}

/// One message of the failure queue, and what became of it.
#[must_use]
pub fn failure(failure: &Failure) -> String {
    let Failure { message, objects, error, when, attempts, state } = failure;
    let mut out = match objects.as_slice() {
        [] => format!("message {}\n", printable(message)),
        some => some.iter().map(|key| printable(key) + "\n").collect(),
    };
    if !error.is_empty() {
        out.push_str(&format!("    {}\n", printable(error)));
    }
    if !when.is_empty() {
        out.push_str(&format!("    given up {} after {}\n", printable(when), of(*attempts, "attempt")));
    }
    out + &format!("    {}\n", printable(&state.to_string()))
}

/// What became of all messages, where the queue has so many others that somebody else looks at.
#[must_use]
pub fn replay(failures: &[Failure], hidden: u64) -> String {
    let count = |is: fn(&State) -> bool| failures.iter().filter(|failure| is(&failure.state)).count() as u64;
    if failures.is_empty() && hidden > 0 {
        return format!(
            "The failure queue gives out nothing, but has {}: another run looks at them, or was killed while it did. They are \
             given out again within 15 minutes.\n",
            of(hidden, "message")
        );
    }
    if failures.is_empty() {
        return "The failure queue is empty.\n".to_owned();
    }
    let counted = count(State::is_counted);
    let deleted = count(|state| *state == State::Deleted);
    let mut out = format!("{}: {} counted", of(failures.len() as u64, "message"), number(counted));
    if deleted > 0 {
        out.push_str(&format!(", {} deleted uncounted", number(deleted)));
    }
    out + &format!(", {} not.\n", number(failures.len() as u64 - counted - deleted))
}

/// That the pipeline works.
#[must_use]
pub fn verified(verified: &Verified) -> String {
    format!(
        "The pipeline works: an object was counted {} after its upload. It and its count are removed again.\n",
        milliseconds(verified.milliseconds)
    )
}

fn milliseconds(n: u64) -> String {
    match n {
        0..1000 => format!("{n} ms"),
        _ => format!("{}.{} s", n / 1000, n % 1000 / 100),
    }
}

/// One screen.
#[must_use]
pub fn status(status: &Status) -> String {
    let Status { pipeline, region, account, at, function, last_hour, last_day, failures, failure_queue, errors } =
        status;
    let mut out = format!("{pipeline} in {region}, account {account}, at {at}\n\n");
    out.push_str(&match function {
        None => "function    is not there: `provisioner apply` makes it\n".to_owned(),
        Some(Deployed { name, state, code_sha256, revision, changed }) => {
            let revision = revision.as_deref().filter(|revision| *revision != "unknown");
            let revision =
                revision.map_or_else(String::new, |revision| format!(" of revision {}", printable(revision)));
            format!(
                "function    {}: {}, changed {}\n            code {}{revision}\n",
                printable(name),
                printable(state),
                printable(changed),
                printable(code_sha256),
            )
        }
    });
    let objects = |span: &Option<Counted>| span.as_ref().map_or_else(|| "unknown".to_owned(), counted);
    out.push_str(&format!("last hour   {}\nlast day    {}\n", objects(last_hour), objects(last_day)));
    out.push_str(&match failures {
        None => "failures    unknown\n".to_owned(),
        Some(0) => "failures    none is waiting\n".to_owned(),
        Some(n) => format!("failures    {n} waiting in {failure_queue}: `provisioner replay --dry-run` shows them\n"),
    });
    out.push_str(match errors.as_deref() {
        None => "errors      unknown\n",
        Some([]) => "errors      none in the log of the last day\n",
        Some(_) => "errors      the last ones in the log:\n",
    });
    for Line { at, message } in errors.iter().flatten() {
        out.push_str(&format!("            {at} {}\n", printable(message.trim())));
    }
    out
}

fn counted(counted: &Counted) -> String {
    let lag = match (counted.median_seconds, counted.longest_seconds) {
        (Some(median), Some(longest)) => {
            // The ledger's clock knows whole seconds.
            let within = |seconds: i64| match seconds {
                0 | 1 => "a second".to_owned(),
                more => format!("{} seconds", grouped(more)),
            };
            format!(", half of them within {} of their upload, all within {}", within(median), within(longest))
        }
        _ => String::new(),
    };
    format!("{} counted{lag}", of(counted.objects as u64, "object"))
}
