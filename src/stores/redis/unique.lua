-- The next unique number, and whether the table exists.
local about = KEYS[1]
return {redis.call('HINCRBY', about, 'unique', 1), redis.call('HEXISTS', about, 'exists')}
