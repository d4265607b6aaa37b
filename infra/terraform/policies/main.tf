# The policy documents of one tenant, and of the buckets it is in, from the templates that Orchard itself renders.
# No provider is needed here: `terraform console` shows what each document says.

locals {
  templates = "${path.module}/../../policies"
  silo      = var.silo_bucket != null

  trust = jsondecode(templatefile("${local.templates}/tenant-trust.json", { operator = var.operator }))

  tenant = {
    Version = "2012-10-17"
    Statement = concat(
      flatten([
        for name, folder in var.folders : jsondecode(templatefile("${local.templates}/tenant-folder.json", {
          partition = var.partition
          bucket    = folder.bucket
          prefix    = folder.prefix
          name      = name
        })).Statement
      ]),
      length(var.keys) == 0 ? [] : jsondecode(templatefile("${local.templates}/tenant-key.json", {
        keys = jsonencode(sort(var.keys))
      })).Statement,
    )
  }

  shared_buckets = {
    for bucket in var.shared_buckets : bucket => {
      Version = "2012-10-17"
      Statement = concat(
        jsondecode(templatefile("${local.templates}/bucket-transport.json", {
          partition = var.partition
          bucket    = bucket
        })).Statement,
        [for statement in jsondecode(
          var.shared_key == null
          ? templatefile("${local.templates}/bucket-encryption.json", { partition = var.partition, bucket = bucket })
          : templatefile("${local.templates}/bucket-encryption-kms.json", {
            partition = var.partition
            bucket    = bucket
            key       = coalesce(var.shared_key, "none")
          })
        ).Statement : statement],
      )
    }
  }

  silo_bucket = !local.silo ? null : {
    Version = "2012-10-17"
    Statement = concat(
      jsondecode(templatefile("${local.templates}/bucket-transport.json", {
        partition = var.partition
        bucket    = coalesce(var.silo_bucket, "none")
      })).Statement,
      jsondecode(templatefile("${local.templates}/bucket-encryption-kms.json", {
        partition = var.partition
        bucket    = coalesce(var.silo_bucket, "none")
        key       = coalesce(var.silo_key, "none")
      })).Statement,
      jsondecode(templatefile("${local.templates}/bucket-silo.json", {
        partition  = var.partition
        bucket     = coalesce(var.silo_bucket, "none")
        principals = jsonencode(distinct(concat([var.role, var.operator], var.administrators)))
      })).Statement,
    )
  }

  silo_key = jsondecode(templatefile("${local.templates}/silo-key.json", {
    partition = var.partition
    account   = var.account
    role      = var.role
  }))
}
