//! `[pipeline]` and `[tags]`

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::managed_tags::{self, MANAGED_TAGS};
use super::rules;

/// The tag whose value is the name of the pipeline that owns the resource.
pub(crate) const PIPELINE_TAG: &str = "pipeline";
/// The tag that names the tool that manages the resource.
pub(crate) const MANAGED_BY_TAG: &str = "managed-by";
/// The value of [`MANAGED_BY_TAG`].
pub(crate) const MANAGED_BY: &str = "provisioner";
/// The largest number of declared tags: AWS allows 50 per resource (AWS tagging guide), two mark ownership, one is the
/// memory of the declared ones, and the function has one for the revision of its code.
const MOST_TAGS: usize = 46;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: Maybe<String>,
    pub(super) region: Maybe<String>,
    pub(super) account: Maybe<String>,
}

pub(super) const KEYS: &[Key] = &[
    key("pipeline.name", "name = \"segment-events\"", "", "Name of the pipeline; all other names derive from it.")
        .text(rules::PIPELINE_NAME)
        .required(),
    key("pipeline.region", "region = \"us-east-1\"", "", "AWS region of all resources.")
        .text(rules::REGION)
        .form(rules::REGION_FORM)
        .required(),
    key(
        "pipeline.account",
        "account = \"123456789012\"",
        "any account",
        "The only AWS account in which to act, as 12 digits.",
    )
    .text(rules::ACCOUNT),
    key(
        "tags",
        "team = \"analytics\"",
        "",
        "Tags of all resources, up to 46; `pipeline`, `managed-by` and `managed-tags` are added.",
    )
    .text(rules::TAG_VALUE),
];

/// Tags with their positions in the file.
pub(super) type RawTags = BTreeMap<Spanned<String>, Spanned<String>>;

/// Checks the tags and adds the ownership markers and the memory of the keys.
pub(super) fn check_tags(check: &mut Check<'_>, tags: &RawTags, pipeline: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (key, value) in tags {
        // Tag keys of IAM roles are case-insensitive (IAM user guide, tags).
        if let Some(other) = seen.insert(key.get_ref().to_ascii_lowercase(), key.get_ref()) {
            check.mistake(
                key.span(),
                format!("AWS refuses this `tags.{}`", key.get_ref()),
                format!("IAM does not distinguish it from `{other}`"),
                "keep one of the two",
            );
        }
        check.rule(key.span(), &format!("tags.{}", key.get_ref()), rules::tag_key(key.get_ref()));
        check.rule(value.span(), &format!("tags.{}", key.get_ref()), rules::TAG_VALUE.check(value.get_ref()));
        all.insert(key.get_ref().clone(), value.get_ref().clone());
    }
    if let Some((last, _)) = tags.iter().nth(MOST_TAGS) {
        let (label, help) = (format!("number {}", MOST_TAGS + 1), format!("keep {MOST_TAGS} or fewer"));
        check.mistake(last.span(), "too many tags", label, help);
    }
    if !all.is_empty() {
        all.insert(MANAGED_TAGS.to_owned(), managed_tags::memory(all.keys()));
    }
    all.insert(PIPELINE_TAG.to_owned(), pipeline.to_owned());
    all.insert(MANAGED_BY_TAG.to_owned(), MANAGED_BY.to_owned());
    all
}
