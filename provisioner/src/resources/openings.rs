//! The openings of a resource in a plan. The pipeline declares none, so all of them are made by others.

use std::collections::{BTreeMap, BTreeSet};

use crate::aws::Openings;
use crate::reconcile::protection::Refusal;

fn listed(principals: &BTreeMap<String, BTreeSet<String>>) -> String {
    let one = |(principal, actions): (&String, &BTreeSet<String>)| {
        format!("{principal} ({})", actions.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    principals.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Returns the conflict of a resource that lets in everyone, other accounts, or services on behalf of any account. `help`
/// says how to close it.
pub(super) fn refusal(openings: &Openings, help: String) -> Option<Refusal> {
    let why = || format!("is open to principals outside the account: {}", listed(&openings.outside));
    (!openings.outside.is_empty()).then(|| Refusal::new(why(), help))
}

/// Returns the notes on the principals of the account that a resource lets in.
pub(super) fn notes(openings: &Openings) -> Vec<String> {
    let note = || format!("its policy, which is unmanaged and kept, lets in {}", listed(&openings.inside));
    (!openings.inside.is_empty()).then(note).into_iter().collect()
}
