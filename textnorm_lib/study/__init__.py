"""How the study is run, without any science: errors, files, stored steps, profiles, weights, processes, runs, pages."""
