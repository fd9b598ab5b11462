"""From labelled texts to the artifacts that the API serves. Runs on the control machine; `app` never imports it."""
