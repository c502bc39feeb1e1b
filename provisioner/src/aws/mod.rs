//! The clients, who and where we are, and how long a call may take.

mod failure;
mod wait;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

pub use failure::{Answer, AwsError, Call, absent_on};
pub use wait::{Pauses, Waiting, retry_while, wait_until};

use crate::config::{LOCAL, Pipeline};
use crate::error::Error;

/// Attempts of one call, the first included. The pauses between them double, jittered, so five attempts bridge up to
/// four seconds; what lasts longer is reported, and so is soon that nobody listens at the endpoint.
const ATTEMPTS: u32 = 5;
/// The first of these pauses.
const BACKOFF: Duration = Duration::from_millis(250);
/// A connection that takes longer than this will not come.
const CONNECT: Duration = Duration::from_secs(3);
/// One attempt: an upload of the function's code on a slow line fits.
const ATTEMPT: Duration = Duration::from_secs(60);
/// One call with all of its attempts.
const CALL: Duration = Duration::from_secs(150);

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
pub struct Aws {
    /// Amazon S3.
    pub s3: aws_sdk_s3::Client,
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Lambda.
    pub lambda: aws_sdk_lambda::Client,
    /// IAM.
    pub iam: aws_sdk_iam::Client,
    /// CloudWatch Logs.
    pub logs: aws_sdk_cloudwatchlogs::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// Resource Groups Tagging API.
    pub tagging: aws_sdk_resourcegroupstagging::Client,
    sts: aws_sdk_sts::Client,
    /// The endpoint, where it is not AWS's own.
    pub endpoint: Option<String>,
}

/// Whose account it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The partition: `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The account's 12 digits.
    pub account: String,
    /// The ARN of who calls.
    pub caller: String,
}

impl Place {
    /// The place that a declaration names by itself, without its caller; nothing where it leaves the account open.
    #[must_use]
    pub fn declared(pipeline: &Pipeline) -> Option<Self> {
        let partition = match pipeline.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("eusc") => "aws-eusc",
            _ if pipeline.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let account = pipeline.account.clone()?;
        Some(Self { partition: partition.to_owned(), region: pipeline.region.clone(), account, caller: String::new() })
    }

    /// An ARN in this place.
    #[must_use]
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition, self.region, self.account)
    }

    /// An ARN of a global service.
    #[must_use]
    pub fn global_arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}::{}:{resource}", self.partition, self.account)
    }

    /// The ARN of a bucket, or with `/` and a pattern of its objects.
    #[must_use]
    pub fn s3_arn(&self, resource: &str) -> String {
        format!("arn:{}:s3:::{resource}", self.partition)
    }
}

/// The resource part of an ARN of `service`: `table/x` of `arn:aws:dynamodb:us-east-1:123456789012:table/x`.
#[must_use]
pub fn resource_in<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    (parts.nth(2) == Some(service)).then(|| parts.nth(2)).flatten()
}

impl Aws {
    /// Reads the standard variables and files and makes the clients; makes no call, but may ask a credential provider.
    ///
    /// # Errors
    /// [`Error::Refused`] where `AWS_REGION` contradicts the file: one of the two is a mistake, and guessing
    /// which would build a pipeline in the wrong place. Likewise where the local environment would mean AWS itself.
    pub async fn connect(pipeline: &Pipeline) -> Result<Self, Error> {
        if let Ok(region) = std::env::var("AWS_REGION")
            && !region.is_empty()
            && region != pipeline.region
        {
            return Err(Error::Refused {
                what: format!(
                    "the region is contradictory: pipeline.toml says {}, the variable AWS_REGION says {}",
                    pipeline.region,
                    region.escape_debug()
                ),
                help: "correct pipeline.region, or unset AWS_REGION".to_owned(),
            });
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
            return Err(Error::Refused {
                what: "the environment `local` is for a local AWS, but no endpoint is set".to_owned(),
                help: "export the variables that `make local` prints, or leave out --env local (and PIPELINE_ENV)"
                    .to_owned(),
            });
        }
        Ok(aws)
    }

    /// Clients of this configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
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

    /// Asks AWS who we are, and refuses an account that is not the pipeline's.
    ///
    /// # Errors
    /// The first call of a run, so credentials, endpoint and network fail here; [`Error::Refused`] where the file
    /// names another account.
    pub async fn whereabouts(&self, pipeline: &Pipeline) -> Result<Place, Error> {
        let doing = "find out which AWS account this is";
        let identity = self
            .sts
            .get_caller_identity()
            .send()
            .await
            .call("sts:GetCallerIdentity")
            .map_err(|source| Error::Aws { doing: doing.to_owned(), source: Box::new(source) })?;
        let missing = |missing| Error::Answer { doing: doing.to_owned(), missing };
        let account = identity.account.ok_or_else(|| missing("account"))?;
        let arn = identity.arn.ok_or_else(|| missing("ARN"))?;
        let partition = arn.split(':').nth(1).filter(|p| !p.is_empty()).unwrap_or("aws").to_owned();
        if let Some(expected) = &pipeline.account
            && *expected != account
        {
            return Err(Error::Refused {
                what: format!("pipeline.toml names account {expected}, but the credentials are of account {account}"),
                help: "set AWS_PROFILE or the credentials of the right account".to_owned(),
            });
        }
        Ok(Place { partition, region: pipeline.region.clone(), account, caller: arn })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use aws_credential_types::Credentials;

    use super::*;

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
