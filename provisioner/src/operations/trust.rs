//! The trust policies by which the jobs of a GitHub repository assume roles, without a stored key.

use std::str::FromStr;

use serde_json::{Value as Json, json};

use crate::aws::Account;

/// The issuer of the tokens of GitHub's jobs.
const ISSUER: &str = "token.actions.githubusercontent.com";
/// The audience of the tokens that `aws-actions/configure-aws-credentials` requests.
const AUDIENCE: &str = "sts.amazonaws.com";

/// A repository as the subjects of its tokens name it: `OWNER/REPO`, or `OWNER@ID/REPO@ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository(String);

/// The name of a branch or an environment of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

/// Jobs of a repository. A job with an environment has only that one as its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jobs<'a> {
    /// The jobs of pull requests from the repository itself; those from forks get no tokens.
    PullRequests,
    /// The jobs on a branch.
    Branch(&'a Name),
    /// The jobs with an environment.
    Environment(&'a Name),
}

impl Repository {
    /// Returns whether the ids of owner and repository are known.
    pub(crate) fn has_ids(&self) -> bool {
        self.0.contains('@')
    }

    /// Returns the trust policy of a role that these jobs may assume.
    pub(crate) fn trust_policy(&self, account: &Account, jobs: &[Jobs<'_>]) -> Json {
        let subject = |jobs: &Jobs<'_>| {
            let jobs = match jobs {
                Jobs::PullRequests => "pull_request".to_owned(),
                Jobs::Branch(Name(name)) => format!("ref:refs/heads/{name}"),
                Jobs::Environment(Name(name)) => format!("environment:{name}"),
            };
            format!("repo:{}:{jobs}", self.0)
        };
        let subjects: Vec<String> = jobs.iter().map(subject).collect();
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Federated": account.oidc_provider_arn(ISSUER) },
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": { format!("{ISSUER}:aud"): AUDIENCE, format!("{ISSUER}:sub"): subjects },
                },
            }],
        })
    }
}

/// Divides `NAME@ID` into both, or returns the name without an id.
fn with_id(part: &str) -> (&str, Option<&str>) {
    part.split_once('@').map_or((part, None), |(name, id)| (name, Some(id)))
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write OWNER/REPO, or OWNER@ID/REPO@ID with both ids";
        let (owner, repository) = text.split_once('/').ok_or(help)?;
        let ((owner, owner_id), (repository, repository_id)) = (with_id(owner), with_id(repository));
        let is_name = |name: &str, signs: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
        };
        let is_id = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit());
        let are_ids = match (owner_id, repository_id) {
            (None, None) => true,
            (Some(owner), Some(repository)) => is_id(owner) && is_id(repository),
            _ => false,
        };
        if is_name(owner, "-_") && is_name(repository, "-_.") && are_ids {
            Ok(Self(text.to_owned()))
        } else {
            Err(help.to_owned())
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A colon separates the parts of a subject, and IAM replaces variables behind a dollar sign.
        let is_other = |c: char| c.is_control() || ":$*?\\".contains(c);
        if text.is_empty() || text.contains(is_other) {
            return Err("write a name without : $ * ? and \\".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(partition: &str, repository: &str, jobs: &[Jobs<'_>]) -> Json {
        let account = Account {
            partition: partition.into(),
            region: "eu-central-1".into(),
            id: "123456789012".into(),
            caller: String::new(),
        };
        repository.parse::<Repository>().expect("a repository").trust_policy(&account, jobs)
    }

    #[test]
    fn trust_policy_names_the_provider_and_exactly_the_jobs() {
        let main: Name = "main".parse().expect("a name");
        let policy = trust("aws", "acme/events", &[Jobs::PullRequests, Jobs::Branch(&main)]);
        let expected = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {
                    "Federated": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com",
                },
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": { "StringEquals": {
                    "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
                    "token.actions.githubusercontent.com:sub":
                        ["repo:acme/events:pull_request", "repo:acme/events:ref:refs/heads/main"],
                } },
            }],
        });
        assert_eq!(policy, expected);
    }

    #[test]
    fn subject_of_an_environment_has_the_given_ids() {
        let production: Name = "production".parse().expect("a name");
        let policy = trust("aws-cn", "acme@12/events@345", &[Jobs::Environment(&production)]);
        let statement = &policy["Statement"][0];
        let subjects = &statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"];
        assert_eq!(*subjects, json!(["repo:acme@12/events@345:environment:production"]));
        assert!(statement["Principal"]["Federated"].as_str().is_some_and(|arn| arn.starts_with("arn:aws-cn:iam::")));
    }

    #[test]
    fn repository_with_other_characters_is_refused() {
        for valid in ["acme/events", "acme-1/a_b.c-d", "acme@1/events@2"] {
            assert!(valid.parse::<Repository>().is_ok_and(|it| it.has_ids() == valid.contains('@')), "{valid}");
        }
        let invalid = [
            "", "acme", "/", "acme/", "/events", "a/b/c", "a b/c", "a/*", "a/b:ref", "a/${x}", "a@1/b", "a@x/b@1",
            "a@/b@",
        ];
        for invalid in invalid {
            assert!(invalid.parse::<Repository>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn name_with_a_pattern_or_a_variable_is_refused() {
        assert!(["main", "release/1.0", "prod eu"].iter().all(|name| name.parse::<Name>().is_ok()));
        assert!(["", "*", "a:b", "${aws:x}", "a\nb"].iter().all(|name| name.parse::<Name>().is_err()));
    }
}
