//! The binary: clients, settings from the environment, and the runtime's loop.

// The futures of the SDK's calls are nested deeply.
#![recursion_limit = "256"]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use handler::dynamodb::Tables;
use handler::s3::Bucket;
use handler::settings::Settings;
use handler::sqs::Queues;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;

/// The attempts at a call.
const ATTEMPTS: u32 = 5;

/// Builds the configuration of a service's client. Lambda sets region and credentials as variables (Lambda developer
/// guide, environment variables), so nothing else has to be searched. The services' types have no common trait.
macro_rules! config {
    ($sdk:ident, $service:literal, $http:expr) => {{
        let mut config = $sdk::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(required("AWS_REGION")?))
            .credentials_provider(credentials()?)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .http_client($http);
        config.set_endpoint_url(endpoint($service));
        config.set_use_fips(switch("AWS_USE_FIPS_ENDPOINT"));
        config.set_use_dual_stack(switch("AWS_USE_DUALSTACK_ENDPOINT"));
        config
    }};
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn required(name: &str) -> Result<String, lambda_runtime::Error> {
    variable(name).ok_or_else(|| format!("the environment variable {name} is missing").into())
}

fn switch(name: &str) -> Option<bool> {
    variable(name).map(|value| value.eq_ignore_ascii_case("true"))
}

/// Returns the custom endpoint of a service, if one is set.
fn endpoint(service: &str) -> Option<String> {
    variable(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| variable("AWS_ENDPOINT_URL"))
}

fn credentials() -> Result<Credentials, lambda_runtime::Error> {
    let (key, secret) = (required("AWS_ACCESS_KEY_ID")?, required("AWS_SECRET_ACCESS_KEY")?);
    Ok(Credentials::new(key, secret, variable("AWS_SESSION_TOKEN"), None, "Lambda"))
}

/// Returns the time until the deadline in epoch milliseconds, if Lambda has set one.
fn time_left(deadline: u64) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (deadline > 0).then(|| Duration::from_millis(deadline).saturating_sub(now))
}

/// Runs the function. Lambda gives a process one invocation at a time, so one thread is enough.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    // CloudWatch adds the time. Logs Insights parses one JSON object per line without configuration.
    tracing_subscriber::fmt().json().flatten_event(true).without_time().with_target(false).init();
    let settings = Settings::from_variables(|name| std::env::var(name).ok())?;

    let http =
        aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
    // A custom endpoint has no host name per bucket.
    let s3 = config!(aws_sdk_s3, "S3", http.clone()).force_path_style(endpoint("S3").is_some()).build();
    let dynamodb = config!(aws_sdk_dynamodb, "DYNAMODB", http.clone()).build();
    let queues = Queues::new(aws_sdk_sqs::Client::from_conf(config!(aws_sdk_sqs, "SQS", http).build()));
    let bucket = Bucket::new(aws_sdk_s3::Client::from_conf(s3), &settings);
    let tables = Tables::new(aws_sdk_dynamodb::Client::from_conf(dynamodb), &settings);

    let (settings, bucket, tables, queues) = (&settings, &bucket, &tables, &queues);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        let left = time_left(event.context.deadline);
        async move {
            handler::handle(event.payload, left, settings, bucket, tables, queues).await.map_err(Diagnostic::from)
        }
    }))
    .await
}
