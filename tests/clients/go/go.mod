module agentsight.test/clients

go 1.15
