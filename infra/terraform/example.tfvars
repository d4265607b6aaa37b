operator       = "arn:aws:iam::123456789012:role/orchard"
administrators = ["arn:aws:iam::123456789012:role/terraform"]
lake           = { bucket = "acme-orchard-lake", prefix = "" }
training       = { bucket = "acme-orchard-artifacts", prefix = "training" }
production     = { bucket = "acme-orchard-artifacts", prefix = "production" }
silo_prefix    = "acme-orchard-silo"

tenants = {
  acme   = { tier = "standard" }
  globex = { tier = "premium", silo = true }
}
