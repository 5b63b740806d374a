"""How the study is run, without any science: errors, stored steps, profiles, weights, processes, runs, pages."""
