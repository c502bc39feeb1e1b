//! The clients of the AWS services, and how long a call may take.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

use super::error::{ATTEMPT, CALL};
use crate::config::{LOCAL, Pipeline};
use crate::error::Error;

/// Attempts of one call, the first included. The pauses between them double, jittered, so five attempts bridge up to
/// four seconds; what lasts longer is reported, and so is soon that nobody listens at the endpoint.
const ATTEMPTS: u32 = 5;
/// The first of these pauses.
const BACKOFF: Duration = Duration::from_millis(250);
/// A connection that takes longer than this will not come.
const CONNECT: Duration = Duration::from_secs(3);
/// The SDK takes every `LimitExceededException` for a throttle and tries again. DynamoDB's limits on changes of a table
/// last a day, or until another change is done, which the caller waits for.
#[derive(Debug)]
struct Limits;

impl ClassifyRetry for Limits {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|error| error.as_operation_error());
        let is_limit = error.is_some_and(|error| {
            let created =
                error.downcast_ref::<CreateTableError>().is_some_and(CreateTableError::is_limit_exceeded_exception);
            created
                || error.downcast_ref::<UpdateTableError>().is_some_and(UpdateTableError::is_limit_exceeded_exception)
        });
        if is_limit { RetryAction::RetryForbidden } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "limits on changes of a table"
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
    /// The endpoint, where it is not AWS's own.
    pub(crate) endpoint: Option<String>,
}

impl Aws {
    /// Reads the standard variables and files and makes the clients; makes no call, but may ask a credential provider.
    ///
    /// # Errors
    /// [`Error::Refused`] where `AWS_REGION` contradicts the file: one of the two is a mistake, and guessing
    /// which would build a pipeline in the wrong place. Likewise where the local environment would mean AWS itself.
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
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(pipeline.region.clone()))
            .http_client(http)
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

    /// Clients of this configuration.
    pub(crate) fn new(config: &SdkConfig) -> Self {
        let endpoint = std::env::var("AWS_ENDPOINT_URL_S3").ok().or_else(|| config.endpoint_url().map(str::to_owned));
        // An endpoint that is not AWS's own has no host name for each bucket.
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(endpoint.is_some()).build();
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::config::Builder::from(config).retry_classifier(Limits).build(),
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
    async fn a_server_that_never_answers_is_given_up() {
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
        let error = answer.expect_err("no answer");
        assert!(matches!(error.answer, Answer::TimedOut), "{error}");
        assert!(
            error.to_string().contains("an attempt has 60 s") && error.remedy().contains("AWS_ENDPOINT_URL"),
            "{error}"
        );
        assert!(started.elapsed() >= attempt * 2 && started.elapsed() < attempt * 50);
        drop(listener);
    }
}
