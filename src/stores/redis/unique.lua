-- The next unique number of a table, and 1 if the table exists.
local about = KEYS[1]
return {redis.call('HINCRBY', about, 'unique', 1), redis.call('HEXISTS', about, 'exists')}
