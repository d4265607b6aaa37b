output "trust" {
  description = "who may assume the tenant's role"
  value       = jsonencode(local.trust)
}

output "tenant" {
  description = "what the tenant's role may do"
  value       = jsonencode(local.tenant)
}

output "shared_buckets" {
  description = "what each shared bucket refuses"
  value       = { for bucket, policy in local.shared_buckets : bucket => jsonencode(policy) }
}

output "silo_bucket" {
  description = "what the bucket of a silo refuses; null without a silo"
  value       = local.silo ? jsonencode(local.silo_bucket) : null
}

output "silo_key" {
  description = "who may use the key of a silo"
  value       = jsonencode(local.silo_key)
}
