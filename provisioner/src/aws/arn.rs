//! Every ARN that a pipeline has, and the names that follow from other names.

use super::Account;

/// The IAM path of a pipeline's roles: their mark of ownership.
pub(crate) fn role_path(pipeline: &str) -> String {
    format!("/pipeline/{pipeline}/")
}

/// The log group to which Lambda writes a function's log.
pub(crate) fn log_group_name(function: &str) -> String {
    format!("/aws/lambda/{function}")
}

/// The resource part of an ARN of `service`: `table/x` of `arn:aws:dynamodb:us-east-1:123456789012:table/x`.
pub(crate) fn resource_in<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    (parts.nth(2) == Some(service)).then(|| parts.nth(2)).flatten()
}

/// The name of the function at an ARN, without a version or an alias.
pub(crate) fn function_name(arn: &str) -> Option<String> {
    let name = resource_in(arn, "lambda")?.strip_prefix("function:")?;
    (!name.contains(':')).then(|| name.to_owned())
}

impl Account {
    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition, self.region, self.id)
    }

    /// A DynamoDB table.
    pub(crate) fn table_arn(&self, name: &str) -> String {
        self.arn("dynamodb", &format!("table/{name}"))
    }

    /// An index of a DynamoDB table.
    pub(crate) fn index_arn(&self, table: &str, index: &str) -> String {
        format!("{}/index/{index}", self.table_arn(table))
    }

    /// A Lambda function.
    pub(crate) fn function_arn(&self, name: &str) -> String {
        self.arn("lambda", &format!("function:{name}"))
    }

    /// An SQS queue.
    pub(crate) fn queue_arn(&self, name: &str) -> String {
        self.arn("sqs", name)
    }

    /// A log group.
    pub(crate) fn log_group_arn(&self, name: &str) -> String {
        self.arn("logs", &format!("log-group:{name}"))
    }

    /// A role of a pipeline.
    pub(crate) fn role_arn(&self, pipeline: &str, name: &str) -> String {
        format!("arn:{}:iam::{}:role{}{name}", self.partition, self.id, role_path(pipeline))
    }

    /// A bucket, or with `/` and a pattern, its objects.
    pub(crate) fn s3_arn(&self, resource: &str) -> String {
        format!("arn:{}:s3:::{resource}", self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_of_an_arn_is_returned_for_its_service_alone() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:events";
        assert_eq!(resource_in(arn, "lambda"), Some("function:events"));
        assert_eq!(resource_in(arn, "sqs"), None);
        assert_eq!(resource_in("function:events", "lambda"), None);
    }
}
