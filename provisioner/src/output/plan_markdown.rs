//! A plan as a comment on a pull request: GitHub-flavoured Markdown with collapsed details.

use std::fmt::Write as _;

use super::plan_text::{changes, cost, cost_lines, place, title};
use crate::reconcile::document::{PlanDocument, PlanEntry, PlanProblem};
use crate::reconcile::plan::Action;
use crate::text::printable;

/// The maximum length in characters. GitHub rejects comments of more than 65,536; the rest is left for text that a
/// workflow adds.
const MAX_LENGTH: usize = 60_000;

/// Renders a plan within GitHub's limit.
pub(crate) fn plan(document: &PlanDocument) -> String {
    let pipeline = &document.pipeline;
    let mut out = String::new();
    // Identifies the comment, so that a workflow can update its earlier one.
    let _ = writeln!(out, "<!-- provisioner plan of {} -->", text(pipeline));
    let _ = writeln!(out, "**{}** in {}\n", text(pipeline), text(&place(document)));
    let _ = writeln!(out, "**{}**\n", document.verdict());

    let mut end = String::new();
    for PlanProblem { kind, name, reason, help } in &document.problems {
        let _ =
            writeln!(end, "> **Problem:** {} {} {}. **Help:** {}\n", text(kind), text(name), text(reason), text(help));
    }
    for note in &document.notes {
        let _ = writeln!(end, "> **Note:** {}\n", text(note));
    }
    if let Some(estimate) = &document.estimate {
        let _ = writeln!(end, "<details><summary>Cost: {}</summary>\n", html(&cost(estimate)));
        let _ = writeln!(end, "| service | a month |\n| --- | --- |");
        for (name, price) in cost_lines(estimate) {
            let _ = writeln!(end, "| {} | {} |", text(&name), text(&price));
        }
        let _ = writeln!(end, "\n</details>");
    }
    let mut omitted = 0;
    let sections: Vec<String> = document.resources.iter().map(section).collect();
    let mut budget = MAX_LENGTH.saturating_sub(out.chars().count() + end.chars().count());
    for (entry, section) in document.resources.iter().zip(sections) {
        // A section that is too long is reduced to its heading, or omitted.
        let short = format!("- `{}`\n\n", code(&title(entry)));
        let shown = [section, short].into_iter().enumerate().find(|(_, text)| text.chars().count() + 200 < budget);
        let Some((i, shown)) = shown else {
            omitted += 1;
            continue;
        };
        omitted += i;
        budget -= shown.chars().count();
        out.push_str(&shown);
    }
    if omitted > 0 {
        let _ = writeln!(out, "*The details of {omitted} resources are left out: they are too long for a comment.*\n");
    }
    let comment = out + &end;
    // Many notes alone can exceed the limit.
    if comment.chars().count() > MAX_LENGTH { comment.chars().take(MAX_LENGTH).collect() } else { comment }
}

fn section(entry: &PlanEntry) -> String {
    let weakens = entry.changes.iter().any(|change| change.weakens.is_some());
    let open = if entry.action == Action::Conflict || weakens { " open" } else { "" };
    let mut out = String::new();
    let _ = writeln!(out, "<details{open}><summary><code>{}</code></summary>\n", html(&title(entry)));
    if let (Some(reason), Some(help)) = (&entry.reason, &entry.help) {
        let _ = writeln!(out, "{}\n\n**Help:** {}\n", text(reason), text(help));
    }
    let lines = changes(entry);
    if !lines.is_empty() {
        // A diff block highlights a line by its first character, so the sign must be in the first column.
        let lines = lines.iter().map(|line| match line.sign {
            Some(_) => line.text.trim_start().to_owned(),
            None => format!("  {}", line.text.strip_prefix("    ").unwrap_or(&line.text)),
        });
        let body = lines.map(|line| without_commands(&line)).collect::<Vec<_>>().join("\n");
        // The fence must be longer than any run of backticks in the body.
        let fence = "`".repeat(body.split(|c| c != '`').map(str::len).max().unwrap_or(0).max(2) + 1);
        let _ = writeln!(out, "{fence}diff\n{body}\n{fence}\n");
    }
    let _ = writeln!(out, "</details>\n");
    out
}

/// Breaks up what a CI runner takes for a command in the output of a job: `##[`, and `::` at the start of a line.
fn without_commands(line: &str) -> String {
    let line = line.replace("##[", "##\\[");
    let start = line.len() - line.trim_start().len();
    match line.get(start..).is_some_and(|rest| rest.starts_with("::")) {
        true => format!("{}:\\:{}", &line[..start], &line[start + 2..]),
        false => line,
    }
}

/// Escapes text within HTML, in which Markdown is not interpreted.
fn html(raw: &str) -> String {
    without_commands(&printable(raw)).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes text for Markdown and HTML.
fn text(raw: &str) -> String {
    let mut out = String::new();
    // An address would become a link.
    let raw = html(raw).replace("://", ":<!-- -->//").replace("www.", "www<!-- -->.");
    for c in raw.chars() {
        match c {
            // Followed by a name, @ would mention a user and # would link an issue.
            '@' | '#' => {
                out.push(c);
                out.push_str("<!-- -->");
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

/// Escapes text within backticks.
fn code(raw: &str) -> String {
    without_commands(&printable(raw).replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::diff::{SettingChange, Value};
    use crate::reconcile::document::FORMAT;
    use crate::reconcile::plan::Counts;

    fn document(resources: usize, value: &str) -> PlanDocument {
        let change = SettingChange { setting: "setting", live: Value::Unset, desired: value.into(), weakens: None };
        let entry = PlanEntry {
            kind: "queue".to_owned(),
            name: "events".to_owned(),
            action: Action::Create,
            reason: None,
            help: None,
            changes: vec![change],
        };
        PlanDocument {
            format: FORMAT,
            pipeline: "events".to_owned(),
            environment: None,
            region: "us-east-1".to_owned(),
            account: "123456789012".to_owned(),
            counts: Counts { create: resources, ..Counts::default() },
            resources: vec![entry; resources],
            problems: Vec::new(),
            orphans: Vec::new(),
            notes: vec!["<script> and @everyone".to_owned()],
            estimate: None,
        }
    }

    #[test]
    fn comment_of_a_large_plan_is_cut_to_the_limit() {
        for (resources, length) in [(1, 100_000), (20, 10_000), (5_000, 100)] {
            let shown = plan(&document(resources, &"x".repeat(length)));
            assert!(shown.chars().count() <= MAX_LENGTH, "{resources} {length}");
            assert!(shown.contains("are left out"), "{resources} {length}");
        }
        assert!(!plan(&document(2, "x")).contains("left out"));
    }

    #[test]
    fn markup_in_values_is_escaped() {
        let shown = plan(&document(1, "```\n</details>\u{202e}"));
        assert!(shown.contains("````diff"), "{shown}");
        assert!(!shown.contains("<script>") && !shown.contains("@everyone") && !shown.contains('\u{202e}'), "{shown}");
    }

    #[test]
    fn address_in_a_note_is_no_link() {
        let mut document = document(1, "x");
        document.notes.push("see https://example.com, www.example.com or [here](//example.com)".to_owned());
        let shown = plan(&document);
        assert!(!shown.contains("https://") && !shown.contains("www.") && !shown.contains("[here]"), "{shown}");
    }

    #[test]
    fn text_does_not_speak_to_a_ci_runner() {
        for value in ["##[error]x", "::set-output name=a::b", "a\n::add-mask::b", "  ::warning::x"] {
            let mut document = document(1, value);
            document.notes.push(value.to_owned());
            let shown = plan(&document);
            assert!(!shown.contains("##["), "{shown}");
            assert!(!shown.lines().any(|line| line.trim_start().starts_with("::")), "{shown}");
        }
        assert_eq!(without_commands("arn:aws:iam::1:role/x"), "arn:aws:iam::1:role/x");
    }
}
