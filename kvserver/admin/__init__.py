"""Sub-commands of the command line, for people and controllers: `kvserver failover`, `rewound`."""
