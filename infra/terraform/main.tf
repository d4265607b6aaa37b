# An Orchard's storage on AWS: the buckets that tenants share, and every tenant's own role, bucket and key.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  buckets = distinct([var.lake.bucket, var.training.bucket, var.production.bucket])
}

resource "aws_kms_key" "shared" {
  count                   = var.shared_key ? 1 : 0
  description             = "files of Orchard's tenants without a silo"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_s3_bucket" "shared" {
  for_each = toset(local.buckets)
  bucket   = each.value
}

resource "aws_s3_bucket_public_access_block" "shared" {
  for_each                = aws_s3_bucket.shared
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "shared" {
  for_each = aws_s3_bucket.shared
  bucket   = each.value.id

  rule {
    bucket_key_enabled = var.shared_key
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.shared_key ? "aws:kms" : "AES256"
      kms_master_key_id = one(aws_kms_key.shared[*].arn)
    }
  }
}

# What a killed process has begun to send stays invisible, and costs, until somebody aborts it.
resource "aws_s3_bucket_lifecycle_configuration" "shared" {
  for_each = aws_s3_bucket.shared
  bucket   = each.value.id

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }
}

module "policies" {
  source         = "./policies"
  partition      = data.aws_partition.current.partition
  account        = data.aws_caller_identity.current.account_id
  operator       = var.operator
  shared_buckets = local.buckets
  shared_key     = one(aws_kms_key.shared[*].arn)
}

resource "aws_s3_bucket_policy" "shared" {
  for_each   = aws_s3_bucket.shared
  bucket     = each.value.id
  policy     = module.policies.shared_buckets[each.key]
  depends_on = [aws_s3_bucket_public_access_block.shared]
}

module "tenant" {
  for_each       = var.tenants
  source         = "./tenant"
  tenant         = each.key
  tier           = each.value.tier
  silo           = each.value.silo
  operator       = var.operator
  administrators = var.administrators
  role_prefix    = var.role_prefix
  session_s      = var.session_s
  lake           = var.lake
  training       = var.training
  production     = var.production
  silo_prefix    = var.silo_prefix
  shared_key     = one(aws_kms_key.shared[*].arn)
}
