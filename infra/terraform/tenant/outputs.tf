output "role" {
  description = "ARN of the tenant's role"
  value       = aws_iam_role.tenant.arn
}

output "bucket" {
  description = "bucket of its silo; null without one"
  value       = local.bucket
}

output "key" {
  description = "ARN of the KMS key that its files are encrypted with; null without one"
  value       = local.key
}
