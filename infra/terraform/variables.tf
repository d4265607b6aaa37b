variable "operator" {
  description = "ARN of the user or role that Orchard runs as (ORCHARD_STORAGE__OPERATOR)"
  type        = string
}

variable "administrators" {
  description = "further ARNs that silos admit (ORCHARD_STORAGE__ADMINISTRATORS); whoever runs Terraform has to be one"
  type        = list(string)
}

variable "tenants" {
  description = "every tenant by its id: its tier, as in its file, and whether it is a silo"
  type        = map(object({ tier = string, silo = optional(bool, false) }))
  default     = {}
}

variable "lake" {
  description = "ORCHARD_LAKE_URL: bucket, and prefix or an empty text"
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
  description = "whether shared buckets are encrypted with a KMS key, which is then made (ORCHARD_STORAGE__KMS_KEY)"
  type        = bool
  default     = true
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
