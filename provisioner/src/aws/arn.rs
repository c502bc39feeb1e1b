//! The ARNs of a pipeline, and the names that derive from other names.

use super::Account;

/// Returns the IAM path of a pipeline's roles, which is their ownership marker.
pub(crate) fn role_path(pipeline: &str) -> String {
    format!("/pipeline/{pipeline}/")
}

/// Returns the name of the log group to which Lambda writes a function's log.
pub(crate) fn log_group_name(function: &str) -> String {
    format!("/aws/lambda/{function}")
}

/// Returns the resource part of an ARN of `service`: `table/x` of `arn:aws:dynamodb:us-east-1:123456789012:table/x`.
pub(crate) fn resource_in<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    (parts.nth(2) == Some(service)).then(|| parts.nth(2)).flatten()
}

/// Returns the name of the function at an ARN, or `None` if the ARN has a version or an alias.
pub(crate) fn function_name(arn: &str) -> Option<String> {
    let name = resource_in(arn, "lambda")?.strip_prefix("function:")?;
    (!name.contains(':')).then(|| name.to_owned())
}

/// Returns whether a live KMS key, by ARN or id, is the key at `arn`.
pub(crate) fn is_key(live: &str, arn: &str) -> bool {
    live == arn || arn.rsplit_once(":key/").is_some_and(|(_, id)| live == id)
}

impl Account {
    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition, self.region, self.id)
    }

    /// Returns the ARN of a DynamoDB table.
    pub(crate) fn table_arn(&self, name: &str) -> String {
        self.arn("dynamodb", &format!("table/{name}"))
    }

    /// Returns the ARN of an index of a DynamoDB table.
    pub(crate) fn index_arn(&self, table: &str, index: &str) -> String {
        format!("{}/index/{index}", self.table_arn(table))
    }

    /// Returns the ARN of a stream of a DynamoDB table, by the stream's label.
    pub(crate) fn table_stream_arn(&self, table: &str, label: &str) -> String {
        format!("{}/stream/{label}", self.table_arn(table))
    }

    /// Returns the ARN of a Lambda function.
    pub(crate) fn function_arn(&self, name: &str) -> String {
        self.arn("lambda", &format!("function:{name}"))
    }

    /// Returns the ARN of an event source mapping, by its id.
    pub(crate) fn mapping_arn(&self, id: &str) -> String {
        self.arn("lambda", &format!("event-source-mapping:{id}"))
    }

    /// Returns the ARN of an SQS queue.
    pub(crate) fn queue_arn(&self, name: &str) -> String {
        self.arn("sqs", name)
    }

    /// Returns the URL of an SQS queue at AWS (botocore, partitions.json: the domains of the partitions).
    pub(crate) fn queue_url(&self, name: &str) -> String {
        let domain = match self.partition.as_str() {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            "aws-iso-e" => "cloud.adc-e.uk",
            "aws-iso-f" => "csp.hci.ic.gov",
            _ => "amazonaws.com",
        };
        format!("https://sqs.{}.{domain}/{}/{name}", self.region, self.id)
    }

    /// Returns the ARN of a Kinesis data stream.
    pub(crate) fn stream_arn(&self, name: &str) -> String {
        self.arn("kinesis", &format!("stream/{name}"))
    }

    /// Returns the ARN of an SNS topic.
    pub(crate) fn topic_arn(&self, name: &str) -> String {
        self.arn("sns", name)
    }

    /// Returns the ARN of a CloudWatch alarm.
    pub(crate) fn alarm_arn(&self, name: &str) -> String {
        self.arn("cloudwatch", &format!("alarm:{name}"))
    }

    /// Returns the ARN of a log group.
    pub(crate) fn log_group_arn(&self, name: &str) -> String {
        self.arn("logs", &format!("log-group:{name}"))
    }

    /// Returns the ARN of a pipeline's role.
    pub(crate) fn role_arn(&self, pipeline: &str, name: &str) -> String {
        format!("arn:{}:iam::{}:role{}{name}", self.partition, self.id, role_path(pipeline))
    }

    /// Returns the pattern of the ARNs of the roles that a service of AWS makes for itself.
    pub(crate) fn service_role_arn(&self, service: &str) -> String {
        format!("arn:{}:iam::{}:role/aws-service-role/{service}/*", self.partition, self.id)
    }

    /// Returns the ARN by which IAM authorises a call about a role that does not exist, since its path is unknown.
    pub(crate) fn pathless_role_arn(&self, name: &str) -> String {
        format!("arn:{}:iam::{}:role/{name}", self.partition, self.id)
    }

    /// Returns the pattern of the ARNs of all principals of a kind, `user` or `role`.
    pub(crate) fn every_principal(&self, kind: &str) -> String {
        format!("arn:{}:iam::{}:{kind}/*", self.partition, self.id)
    }

    /// Returns the ARN of the identity provider with this issuer.
    pub(crate) fn oidc_provider_arn(&self, issuer: &str) -> String {
        format!("arn:{}:iam::{}:oidc-provider/{issuer}", self.partition, self.id)
    }

    /// Returns the ARN of a bucket, or with `/` and a pattern, of its objects.
    pub(crate) fn s3_arn(&self, resource: &str) -> String {
        format!("arn:{}:s3:::{resource}", self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_of_an_arn_is_returned_for_its_service_only() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:events";
        assert_eq!(resource_in(arn, "lambda"), Some("function:events"));
        assert_eq!(resource_in(arn, "sqs"), None);
        assert_eq!(resource_in("function:events", "lambda"), None);
    }

    #[test]
    fn queue_url_is_in_the_domain_of_the_partition() {
        let url = |partition: &str, region: &str| {
            let (partition, region, id) = (partition.to_owned(), region.to_owned(), "123456789012".to_owned());
            Account { partition, region, id, caller: String::new() }.queue_url("events")
        };
        assert_eq!(url("aws", "us-east-1"), "https://sqs.us-east-1.amazonaws.com/123456789012/events");
        assert_eq!(url("aws-cn", "cn-north-1"), "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/events");
    }
}
