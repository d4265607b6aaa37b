output "settings" {
  description = "what Orchard is told of all this"
  value = {
    ORCHARD_LAKE_URL                 = trim("s3://${var.lake.bucket}/${var.lake.prefix}", "/")
    ORCHARD_TRAINING_ARTIFACTS_URL   = trim("s3://${var.training.bucket}/${var.training.prefix}", "/")
    ORCHARD_PRODUCTION_ARTIFACTS_URL = trim("s3://${var.production.bucket}/${var.production.prefix}", "/")
    ORCHARD_SILO_URL                 = "s3://${var.silo_prefix}"
    ORCHARD_STORAGE__OPERATOR        = var.operator
    ORCHARD_STORAGE__ADMINISTRATORS  = jsonencode(var.administrators)
    ORCHARD_STORAGE__ROLE_PREFIX     = var.role_prefix
    ORCHARD_STORAGE__SESSION_S       = tostring(var.session_s)
    ORCHARD_STORAGE__KMS_KEY         = one(aws_kms_key.shared[*].arn)
  }
}

output "roles" {
  description = "ARN of each tenant's role"
  value       = { for id, tenant in module.tenant : id => tenant.role }
}
