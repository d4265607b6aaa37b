variable "partition" {
  description = "AWS partition: aws, aws-cn ..."
  type        = string
  default     = "aws"
}

variable "account" {
  description = "id of the AWS account"
  type        = string
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

variable "role" {
  description = "ARN of the tenant's role"
  type        = string
  default     = ""
}

variable "folders" {
  description = "the tenant's folders by the names that its policy gives them: Lake, TrainingArtifacts, ProductionArtifacts"
  type        = map(object({ bucket = string, prefix = string }))
  default     = {}
}

variable "keys" {
  description = "ARNs of the KMS keys that these folders are encrypted with"
  type        = list(string)
  default     = []
}

variable "shared_buckets" {
  description = "buckets that tenants without a silo share"
  type        = list(string)
  default     = []
}

variable "shared_key" {
  description = "ARN of the KMS key of shared buckets (ORCHARD_STORAGE__KMS_KEY)"
  type        = string
  default     = null
}

variable "silo_bucket" {
  description = "bucket of the tenant's silo"
  type        = string
  default     = null
}

variable "silo_key" {
  description = "ARN of the silo's KMS key"
  type        = string
  default     = null
}
