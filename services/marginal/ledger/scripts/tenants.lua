-- ARGV: now; gives the tenants with money in the month of now
return call('SMEMBERS', TAG .. ':tenants:' .. periods(NOW)[3])
