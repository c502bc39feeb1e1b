//! The binary: clients, settings from the environment, and the runtime's loop.

use aws_config::retry::RetryConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use handler::dynamodb::Tables;
use handler::s3::Bucket;
use handler::settings::Settings;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;

/// Runs the function. Lambda gives a process one invocation at a time, so one thread is enough.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    // CloudWatch adds the time. Logs Insights parses one JSON object per line without configuration.
    tracing_subscriber::fmt().json().flatten_event(true).without_time().with_target(false).init();
    let settings = Settings::from_variables(|name| std::env::var(name).ok())?;

    let http =
        aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::from_env()
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .load()
        .await;
    // A custom endpoint has no host name per bucket.
    let custom_endpoint = config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(custom_endpoint).build();
    let bucket = Bucket::new(aws_sdk_s3::Client::from_conf(s3));
    let tables = Tables::new(aws_sdk_dynamodb::Client::new(&config), &settings);

    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async {
        handler::handle(event.payload, &settings, &bucket, &tables).await.map_err(Diagnostic::from)
    }))
    .await
}
