//! The clients of the AWS services, with their retries and timeouts.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

use super::error::{ATTEMPT, CALL};
use super::http;
use crate::config::{LOCAL, Pipeline};
use crate::error::Error;

/// Attempts of one call, including the first. The pauses between them double, with jitter, so five attempts bridge an
/// outage of up to four seconds. A longer outage is reported, and an endpoint that refuses connections is reported
/// within seconds.
const ATTEMPTS: u32 = 5;
/// The first pause between attempts.
const BACKOFF: Duration = Duration::from_millis(250);
/// The time limit of a connection attempt; a slower one is unlikely to succeed.
const CONNECT: Duration = Duration::from_secs(3);

/// A retry classifier that forbids retries at DynamoDB's limits on table changes. The SDK takes every
/// `LimitExceededException` for a throttle and retries it, but these limits last a day, or until another change is
/// complete, which the caller waits for.
#[derive(Debug)]
struct TableLimits;

impl ClassifyRetry for TableLimits {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|error| error.as_operation_error());
        let is_limit = error.is_some_and(|error| {
            let on_create =
                error.downcast_ref::<CreateTableError>().is_some_and(CreateTableError::is_limit_exceeded_exception);
            on_create
                || error.downcast_ref::<UpdateTableError>().is_some_and(UpdateTableError::is_limit_exceeded_exception)
        });
        if is_limit { RetryAction::RetryForbidden } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "limits on table changes"
    }
}

/// Clients for one account and region.
#[derive(Debug, Clone)]
pub(crate) struct Aws {
    /// Amazon S3.
    pub(crate) s3: aws_sdk_s3::Client,
    /// DynamoDB.
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    /// Lambda.
    pub(crate) lambda: aws_sdk_lambda::Client,
    /// IAM.
    pub(crate) iam: aws_sdk_iam::Client,
    /// CloudWatch Logs.
    pub(crate) logs: aws_sdk_cloudwatchlogs::Client,
    /// SQS.
    pub(crate) sqs: aws_sdk_sqs::Client,
    /// Resource Groups Tagging API.
    pub(crate) tagging: aws_sdk_resourcegroupstagging::Client,
    /// AWS STS.
    pub(crate) sts: aws_sdk_sts::Client,
    /// The custom endpoint, if one is set.
    pub(crate) endpoint: Option<String>,
}

impl Aws {
    /// Creates the clients from the standard environment variables and files. Makes no AWS call, but may query a
    /// credential provider.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Usage`] if `AWS_REGION` contradicts the file: one of the two is a mistake, and a
    /// wrong guess would deploy to the wrong region. Likewise if the environment `local` would reach AWS itself.
    pub(crate) async fn connect(pipeline: &Pipeline) -> Result<Self, Error> {
        if let Ok(region) = std::env::var("AWS_REGION")
            && !region.is_empty()
            && region != pipeline.region
        {
            return Err(Error::usage(
                format!(
                    "conflicting regions: pipeline.toml names {}, AWS_REGION names {}",
                    pipeline.region,
                    region.escape_debug()
                ),
                "correct pipeline.region, or unset AWS_REGION",
            ));
        }
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(pipeline.region.clone()))
            .http_client(http::client()?)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACKOFF))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT)
                    .operation_attempt_timeout(ATTEMPT)
                    .operation_timeout(CALL)
                    .build(),
            )
            .load()
            .await;
        let aws = Self::new(&config);
        if pipeline.environment.as_deref() == Some(LOCAL) && aws.endpoint.is_none() {
            return Err(Error::usage(
                "the environment `local` requires an endpoint of a local AWS",
                "export the variables that `make local` prints, or remove --env local (and PIPELINE_ENV)",
            ));
        }
        Ok(aws)
    }

    /// Creates the clients from an SDK configuration.
    pub(crate) fn new(config: &SdkConfig) -> Self {
        let endpoint = std::env::var("AWS_ENDPOINT_URL_S3").ok().or_else(|| config.endpoint_url().map(str::to_owned));
        // A custom endpoint has no host name per bucket.
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(endpoint.is_some()).build();
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::config::Builder::from(config).retry_classifier(TableLimits).build(),
            ),
            lambda: aws_sdk_lambda::Client::new(config),
            iam: aws_sdk_iam::Client::new(config),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
            sqs: aws_sdk_sqs::Client::new(config),
            tagging: aws_sdk_resourcegroupstagging::Client::new(config),
            sts: aws_sdk_sts::Client::new(config),
            endpoint,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use aws_credential_types::Credentials;

    use super::*;
    use crate::aws::{Answer, Call};

    #[tokio::test]
    async fn call_to_a_silent_server_times_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let attempt = Duration::from_millis(200);
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::for_tests())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(10)))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build())
            .load()
            .await;
        let started = Instant::now();
        let answer = Aws::new(&config).sts.get_caller_identity().send().await.call("sts:GetCallerIdentity");
        let error = answer.expect_err("a timeout");
        assert!(matches!(error.answer, Answer::TimedOut), "{error}");
        assert!(
            error.to_string().contains("60 s per attempt") && error.remedy().contains("AWS_ENDPOINT_URL"),
            "{error}"
        );
        assert!(started.elapsed() >= attempt * 2 && started.elapsed() < attempt * 50);
        drop(listener);
    }
}
