# One tenant: its role, and for a silo its bucket and its key. Orchard finds all of it as it would have made it itself.

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
  name      = "${var.role_prefix}${var.tenant}"
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  role      = "arn:${local.partition}:iam::${local.account}:role/${local.name}"
  bucket    = var.silo ? "${var.silo_prefix}-${var.tenant}" : null
  tags      = { orchard-tenant = var.tenant, orchard-tier = var.tier }
  key       = var.silo ? aws_kms_key.silo[0].arn : var.shared_key

  shared = {
    Lake                = { bucket = var.lake.bucket, prefix = trim("${var.lake.prefix}/tenants/${var.tenant}", "/") }
    TrainingArtifacts   = { bucket = var.training.bucket, prefix = trim("${var.training.prefix}/${var.tenant}", "/") }
    ProductionArtifacts = { bucket = var.production.bucket, prefix = trim("${var.production.prefix}/${var.tenant}", "/") }
  }
  own = {
    Lake                = { bucket = coalesce(local.bucket, "none"), prefix = "lake" }
    TrainingArtifacts   = { bucket = coalesce(local.bucket, "none"), prefix = "artifacts/training" }
    ProductionArtifacts = { bucket = coalesce(local.bucket, "none"), prefix = "artifacts/production" }
  }
}

module "policies" {
  source         = "../policies"
  partition      = local.partition
  account        = local.account
  operator       = var.operator
  administrators = var.administrators
  role           = local.role
  folders        = var.silo ? local.own : local.shared
  keys           = local.key == null ? [] : [local.key]
  silo_bucket    = local.bucket
  silo_key       = var.silo ? local.key : null
}

resource "aws_iam_role" "tenant" {
  name                 = local.name
  description          = "opens the files of Orchard's tenant ${var.tenant}"
  assume_role_policy   = module.policies.trust
  max_session_duration = max(var.session_s, 3600)
  tags                 = local.tags
}

resource "aws_iam_role_policy" "folders" {
  name   = "folders"
  role   = aws_iam_role.tenant.id
  policy = module.policies.tenant
}

resource "aws_kms_key" "silo" {
  count                   = var.silo ? 1 : 0
  description             = "files of Orchard's tenant ${var.tenant}"
  policy                  = module.key[0].silo_key
  enable_key_rotation     = true
  deletion_window_in_days = 7
  tags                    = local.tags
  depends_on              = [aws_iam_role.tenant]
}

# Apart from the other documents, which name the key.
module "key" {
  count     = var.silo ? 1 : 0
  source    = "../policies"
  partition = local.partition
  account   = local.account
  operator  = var.operator
  role      = local.role
}

resource "aws_kms_alias" "silo" {
  count         = var.silo ? 1 : 0
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.silo[0].key_id
}

resource "aws_s3_bucket" "silo" {
  count  = var.silo ? 1 : 0
  bucket = local.bucket
  tags   = local.tags
}

resource "aws_s3_bucket_public_access_block" "silo" {
  count                   = var.silo ? 1 : 0
  bucket                  = aws_s3_bucket.silo[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "silo" {
  count  = var.silo ? 1 : 0
  bucket = aws_s3_bucket.silo[0].id

  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.silo[0].arn
    }
  }
}

resource "aws_s3_bucket_policy" "silo" {
  count      = var.silo ? 1 : 0
  bucket     = aws_s3_bucket.silo[0].id
  policy     = module.policies.silo_bucket
  depends_on = [aws_s3_bucket_public_access_block.silo, aws_s3_bucket_server_side_encryption_configuration.silo]
}
