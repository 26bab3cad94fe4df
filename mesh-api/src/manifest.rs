//! What users write: YAML documents, parsed strictly and lowered to the model with every problem reported.
