variable "tenant" {
  description = "the tenant's id, as in its YAML file"
  type        = string
}

variable "tier" {
  description = "the tenant's tier, as in its file: bills are split by it"
  type        = string
}

variable "silo" {
  description = "whether it has a bucket and a key of its own (isolation: silo)"
  type        = bool
  default     = false
}

variable "operator" {
  description = "ARN of the user or role that Orchard runs as (ORCHARD_STORAGE__OPERATOR)"
  type        = string
}

variable "administrators" {
  description = "further ARNs that the bucket of a silo admits (ORCHARD_STORAGE__ADMINISTRATORS); whoever runs Terraform is one"
  type        = list(string)
  default     = []
}

variable "role_prefix" {
  description = "ORCHARD_STORAGE__ROLE_PREFIX"
  type        = string
  default     = "orchard-tenant-"
}

variable "session_s" {
  description = "ORCHARD_STORAGE__SESSION_S"
  type        = number
  default     = 3600
}

variable "lake" {
  description = "ORCHARD_LAKE_URL"
  type        = object({ bucket = string, prefix = string })
}

variable "training" {
  description = "ORCHARD_TRAINING_ARTIFACTS_URL"
  type        = object({ bucket = string, prefix = string })
}

variable "production" {
  description = "ORCHARD_PRODUCTION_ARTIFACTS_URL"
  type        = object({ bucket = string, prefix = string })
}

variable "silo_prefix" {
  description = "NAME of ORCHARD_SILO_URL=s3://NAME"
  type        = string
}

variable "shared_key" {
  description = "ARN of the KMS key of shared buckets (ORCHARD_STORAGE__KMS_KEY)"
  type        = string
  default     = null
}
