//! The runtime's loop, clients, and settings from the environment: of the counter ([`run`]) and of consumers ([`consume`]).

use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use counting::consumer::{self, Batch, Delivery};
use futures_util::future::LocalBoxFuture;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tracing::error;

use crate::dynamodb::Tables;
use crate::error::error_chain;
use crate::s3::Bucket;
use crate::settings::Settings;
use crate::sqs::Queues;

pub use counting::rollup::Namer;
pub use lambda_runtime::Error;

/// The attempts at a call.
pub const ATTEMPTS: u32 = 5;

/// Builds the configuration of a service's client, for a function that returns [`Error`](crate::runtime::Error). Lambda
/// sets region and credentials as variables (Lambda developer guide, environment variables), so nothing else has to be
/// searched. The services' types have no common trait.
///
/// ```text
/// let sns = aws_sdk_sns::Client::from_conf(handler::config!(aws_sdk_sns, "SNS").build());
/// ```
#[macro_export]
macro_rules! config {
    ($sdk:ident, $service:literal) => {{
        let mut config = $sdk::Config::builder()
            .behavior_version($sdk::config::BehaviorVersion::latest())
            .region($sdk::config::Region::new($crate::runtime::required("AWS_REGION")?))
            .credentials_provider($crate::runtime::credentials()?)
            .retry_config($sdk::config::retry::RetryConfig::standard().with_max_attempts($crate::runtime::ATTEMPTS))
            .http_client($crate::runtime::http_client());
        config.set_endpoint_url($crate::runtime::endpoint($service));
        config.set_use_fips($crate::runtime::switch("AWS_USE_FIPS_ENDPOINT"));
        config.set_use_dual_stack($crate::runtime::switch("AWS_USE_DUALSTACK_ENDPOINT"));
        config
    }};
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the value of an environment variable.
///
/// # Errors
/// It is missing or empty.
pub fn required(name: &str) -> Result<String, Error> {
    variable(name).ok_or_else(|| format!("the environment variable {name} is missing").into())
}

/// Returns whether an environment variable is `true`, if it is set.
#[must_use]
pub fn switch(name: &str) -> Option<bool> {
    variable(name).map(|value| value.eq_ignore_ascii_case("true"))
}

/// Returns the custom endpoint of a service, if one is set.
#[must_use]
pub fn endpoint(service: &str) -> Option<String> {
    variable(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| variable("AWS_ENDPOINT_URL"))
}

/// Returns the credentials of the function's role.
///
/// # Errors
/// A variable of Lambda's is missing.
pub fn credentials() -> Result<Credentials, Error> {
    let (key, secret) = (required("AWS_ACCESS_KEY_ID")?, required("AWS_SECRET_ACCESS_KEY")?);
    Ok(Credentials::new(key, secret, variable("AWS_SESSION_TOKEN"), None, "Lambda"))
}

/// Returns the HTTP client that all clients of the process share.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    static CLIENT: OnceLock<SharedHttpClient> = OnceLock::new();
    let build =
        || aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
    CLIENT.get_or_init(build).clone()
}

/// Returns a client of DynamoDB.
///
/// # Errors
/// A variable of Lambda's is missing.
pub fn dynamodb() -> Result<aws_sdk_dynamodb::Client, Error> {
    Ok(aws_sdk_dynamodb::Client::from_conf(config!(aws_sdk_dynamodb, "DYNAMODB").build()))
}

/// Opens the log, unless it is open. CloudWatch adds the time. Logs Insights parses one JSON object per line without
/// configuration.
fn open_log() {
    let _ = tracing_subscriber::fmt().json().flatten_event(true).without_time().with_target(false).try_init();
}

/// Returns the time until the deadline in epoch milliseconds, if Lambda has set one.
fn time_left(deadline: u64) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (deadline > 0).then(|| Duration::from_millis(deadline).saturating_sub(now))
}

/// Runs the counter: it counts each message under its own name, or under the one that `namer` gives it. A recount counts
/// under the present names and takes back the earlier ones; everything else is counted once, by the names of the first
/// attempt.
///
/// # Errors
/// The environment is not the one that the provisioner sets, or Lambda ends the loop.
pub fn run(namer: Option<Namer>) -> LocalBoxFuture<'static, Result<(), Error>> {
    Box::pin(count(namer))
}

async fn count(namer: Option<Namer>) -> Result<(), Error> {
    open_log();
    let mut settings = Settings::from_variables(|name| std::env::var(name).ok())?;
    settings.rules.namer = namer;

    // A custom endpoint has no host name per bucket.
    let s3 = config!(aws_sdk_s3, "S3").force_path_style(endpoint("S3").is_some()).build();
    let queues = Queues::new(aws_sdk_sqs::Client::from_conf(config!(aws_sdk_sqs, "SQS").build()));
    let bucket = Bucket::new(aws_sdk_s3::Client::from_conf(s3), &settings);
    let tables = Tables::new(dynamodb()?, &settings);

    let (settings, bucket, tables, queues) = (&settings, &bucket, &tables, &queues);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        let left = time_left(event.context.deadline);
        async move {
            crate::handle(event.payload, left, settings, bucket, tables, queues).await.map_err(Diagnostic::from)
        }
    }))
    .await
}

/// Runs a consumer: it is given the batches of the counter's stream in their order, each at least once. After an error,
/// Lambda delivers the invocation's batches again, and at last keeps their place in the stream in the failure queue.
///
/// # Errors
/// Lambda ends the loop.
pub async fn consume<F, W>(consumer: F) -> Result<(), Error>
where
    F: Fn(Batch) -> W,
    W: Future<Output = Result<(), Error>>,
{
    open_log();
    let consumer = &consumer;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        deliver(&event.payload, consumer).await.map_err(|why| {
            error!(why, "not consumed");
            Diagnostic { error_type: "NotConsumed".to_owned(), error_message: why }
        })
    }))
    .await
}

/// Passes the batches of a payload on until one fails. The whole invocation then fails, so that Lambda counts an error;
/// its batches have ids by which a consumer knows those that it has consumed.
async fn deliver<F, W>(payload: &Value, consumer: &F) -> Result<(), String>
where
    F: Fn(Batch) -> W,
    W: Future<Output = Result<(), Error>>,
{
    for delivery in consumer::deliveries(payload).map_err(|error| error.to_string())? {
        let Delivery { sequence_number, batch } = delivery.map_err(|error| error.to_string())?;
        let id = batch.id.clone();
        // Boxed, so that the types of futures are not nested even more deeply.
        let consumed: LocalBoxFuture<'_, Result<(), Error>> = Box::pin(consumer(batch));
        let failed = |error: Error| format!("batch {id}, record {sequence_number}: {}", error_chain(&*error));
        consumed.await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    fn record(sequence_number: &str, added: &str) -> Value {
        let image = json!({
            "object": { "S": "plan:abc" }, "chunk": { "N": sequence_number }, "added": { "S": added },
        });
        let record = json!({ "SequenceNumber": sequence_number, "NewImage": image });
        json!({ "eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": record })
    }

    /// Delivers these records to a consumer that fails at the batch `failing`; returns the error and the batches that it
    /// was given.
    async fn delivered(records: &[Value], failing: &str) -> (Option<String>, Vec<String>) {
        let given = RefCell::new(Vec::new());
        let list = &given;
        let consumer = |batch: Batch| async move {
            let result = if batch.id == failing { Err(Error::from("out of order")) } else { Ok(()) };
            list.borrow_mut().push(batch.id);
            result
        };
        let result = deliver(&json!({ "Records": records }), &consumer).await;
        (result.err(), given.into_inner())
    }

    #[tokio::test]
    async fn batches_are_consumed_in_order() {
        let records = [record("1", "[]"), record("2", "[]")];
        let (error, given) = delivered(&records, "").await;
        assert_eq!((error, given), (None, vec!["plan:abc/1".to_owned(), "plan:abc/2".to_owned()]));
    }

    #[tokio::test]
    async fn failed_or_damaged_batch_fails_the_invocation_after_the_batches_before_it() {
        let failed = [record("1", "[]"), record("2", "[]"), record("3", "[]")];
        let (error, given) = delivered(&failed, "plan:abc/2").await;
        assert_eq!(error.as_deref(), Some("batch plan:abc/2, record 2: out of order"));
        assert_eq!(given, ["plan:abc/1", "plan:abc/2"]);
        let damaged = [record("1", "[]"), record("2", "no JSON"), record("3", "[]")];
        let (error, given) = delivered(&damaged, "").await;
        assert!(error.is_some_and(|error| error.starts_with("failed to read record 2: ")));
        assert_eq!(given, ["plan:abc/1"]);
    }
}
